"""Networks for other programs: the reference's .pth files, and ONNX.

`ctmri export RUN_OR_CHECKPOINT OUT`.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..cyclegan.architectures import infer_architecture
from ..cyclegan.model import Translator
from ..cyclegan.networks import Generator
from ..files import atomic_write
from ..machine import import_optional
from ..units import CT_MAPS, HU, MRI_PERCENTILES
from .locations import locate
from .recognise import Networks, recognise
from .reference import choose_network, generator_from_state, grey_state
from .weights import translator_of

SUFFIXES = (".pth", ".onnx")

NETWORK_RANGE = "-1 to 1"
MRI_RANGE = (
    f"MR from -1 to 1: its percentiles {MRI_PERCENTILES[0]:g} and {MRI_PERCENTILES[1]:g} inside "
    "the head, over the whole volume, become -1 and 1, and what lies outside of the head is -1"
)


class PhysicalGenerator(nn.Module):
    """An averaged generator with its CT map and CT scale: CT goes in or comes out in its own unit.

    MR stays in [-1, 1] on the other side: it has no unit, see `mri_scale`.

    Args:
        model: the model of the generator; its contract, if it has one, says the scale of CT.
        makes: "mri" from CT, or "ct" from MR.
    """

    def __init__(self, model: Translator, makes: str):
        super().__init__()
        self.generator = model.averaged[makes].cpu()
        self.makes = makes
        self.ct_map = model.ct_map
        channels = {"mri": model.architecture.ct_channels, "ct": model.architecture.mri_channels}
        self.image_channels = channels[makes]
        self.contract = model.contract
        self.scale = model.contract.ct_scale if model.contract else HU

    @property
    def card(self) -> dict[str, Any]:
        """What goes in and comes out, in words, and the contract."""
        ct, mri = f"CT in {self.scale.unit}", MRI_RANGE
        source, translation = (ct, mri) if self.makes == "mri" else (mri, ct)
        card = {"input": source, "output": translation}
        if self.contract:
            card["contract"] = asdict(self.contract) | {"makes": [self.makes]}
        return card

    def forward(self, image: Tensor) -> Tensor:
        """CT (N, 1, H, W) in HU to MR in [-1, 1], or the other way round."""
        if self.makes == "mri":
            return self.generator(self.ct_map.encode(self.scale.to_network(image)))
        return self.scale.from_network(self.ct_map.decode(self.generator(image)))


def save_reference(path: str | Path, network: nn.Module) -> None:
    """Write the network's state dict alone, as the reference does.

    That program loads it under such a name as latest_net_G_A.pth.

    Raises:
        ValueError: it has what the reference lacks, a CT map, resize-convolutions, spectral norm,
            or other padding than reflection in its blocks.
    """
    if isinstance(network, PhysicalGenerator):
        if network.ct_map is not CT_MAPS["linear"]:
            raise ValueError(
                "the reference has no map of CT, but these networks see CT through one of "
                "units.CT_MAPS: export to .onnx, which contains it"
            )
        network = network.generator
    if getattr(network, "padding", "reflect") != "reflect":
        raise ValueError(
            f"the reference pads by reflection but this network by padding = {network.padding!r}: "
            "export to .onnx"
        )
    state = network.state_dict()
    architecture = infer_architecture(state)
    if architecture.get("upsampling") == "resize" or architecture.get("spectral"):
        raise ValueError(
            "the reference has neither resize-convolutions nor spectral norm: export to .onnx"
        )
    with atomic_write(path) as temporary:
        torch.save({key: tensor.cpu() for key, tensor in state.items()}, temporary)


def export_onnx(
    path: str | Path,
    network: Generator | PhysicalGenerator,
    metadata: dict[str, Any],
    size: int | None = None,
) -> None:
    """Write a generator for ONNX runtimes.

    `image` (batch, channels, height, width), float32 -> `translation`, of that size. Batch, height
    and width are free; padding is part of the graph (opset 18), dropout is not.

    Args:
        path: the file to write.
        network: a generator, from [-1, 1] to [-1, 1]; with its CT map and scale inside, CT is in
            HU.
        metadata: goes along with the architecture, as JSON under the key "card".
        size: only for single images of so many pixels per side, which makes a smaller graph in a
            third of the time.

    Raises:
        ModuleNotFoundError: onnxscript is missing; it names the extra that brings it.
    """
    # torch exports by onnxscript, and does not say how to install it.
    import_optional("onnxscript")

    network = deepcopy(network).cpu().eval()
    generator = getattr(network, "generator", network)
    architecture = infer_architecture(generator.state_dict())
    channels = getattr(network, "image_channels", architecture["in_channels"])
    if size:
        image, dynamic_shapes = torch.zeros(1, channels, size, size), None
    else:
        side = 2 * generator.multiple + 8
        image = torch.zeros(2, channels, side, side + 1)
        dynamic_shapes = ({0: "batch", 2: "height", 3: "width"},)
    program = torch.onnx.export(
        network,
        (image,),
        dynamo=True,
        opset_version=18,
        verbose=False,
        input_names=["image"],
        output_names=["translation"],
        dynamic_shapes=dynamic_shapes,
    )

    # The output has the input's size, which torch writes as a long formula of padding and cropping.
    input_shape = program.model.graph.inputs[0].shape
    output_shape = program.model.graph.outputs[0].shape
    for axis in (0, 2, 3):
        output_shape[axis] = input_shape[axis]

    program.model.metadata_props["card"] = json.dumps({"architecture": architecture, **metadata})
    with atomic_write(path) as temporary:
        program.save(temporary)


def export(
    source: str | Path,
    output: Path,
    to: str | None = None,
    grey: bool = False,
    padding: str = "reflect",
) -> None:
    """Write a generator in the format that the suffix of `output` names.

    Args:
        source: a run's folder or its name in the build folder, shipped weights (heads, phantom), a
            file of weights, or one that `load_reference` reads.
        output: .pth (the reference's) or .onnx. An .onnx of a run or of weights takes or gives CT
            in HU; a .pth, and an .onnx of the reference's file, -1 to 1.
        to: "mri" or "ct", which of the two generators, where there are two. Its averaged weights
            are written.
        grey, padding: see `load_reference`.

    Raises:
        ValueError, FileNotFoundError: the source holds no such generator, or is not there.
    """
    output = Path(output)
    suffix = output.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{output} must end in one of {', '.join(SUFFIXES)}, which chooses the format"
        )

    contents = recognise(locate(source))
    metadata = {"source": Path(source).name}
    if to:
        metadata["makes"] = to
    if isinstance(contents, Networks):
        state = choose_network(contents, to)
        if grey:
            state = grey_state(state, contents.path)
        network = generator_from_state(state, contents.path, padding)
        metadata |= {"input": NETWORK_RANGE, "output": NETWORK_RANGE}
    else:
        model = translator_of(contents, padding=padding)
        if to not in model.averaged:
            raise ValueError(
                f"{source} holds two generators: give --to mri for the one that makes MR, or --to "
                "ct"
            )
        network = PhysicalGenerator(model, to)
        metadata |= network.card

    if suffix == ".onnx":
        export_onnx(output, network, metadata)
    else:
        save_reference(output, network)
