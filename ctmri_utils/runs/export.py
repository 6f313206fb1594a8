"""Networks from and for other programs: the reference's .pth files, and ONNX.

`python -m ctmri_utils export RUN_OR_CHECKPOINT OUT`.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import torch
from torch import nn

from ..cyclegan.networks import Generator
from ..cyclegan.variants import infer_architecture
from ..files import atomic_write
from .recognise import Networks, locate, recognise
from .reference import choose_network, load_reference, network_from_state
from .weights import load_translator

__all__ = ["export", "export_onnx", "load_reference", "save_reference"]

SUFFIXES = (".pth", ".onnx")


def save_reference(path: str | Path, network: nn.Module) -> None:
    """Write the network's state dict alone, as the reference does.

    That program loads it under such a name as latest_net_G_A.pth.

    Raises:
        ValueError: it has what the reference lacks, resize-convolutions, spectral norm, or other
            padding than reflection in its blocks.
    """
    if getattr(network, "padding", "reflect") != "reflect":
        raise ValueError(
            f"the reference pads by reflection and this network by padding = {network.padding!r}: "
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


def export_onnx(path: str | Path, generator: Generator, metadata: dict) -> None:
    """Write a generator for ONNX runtimes.

    `image` (batch, channels, height, width), float32 in [-1, 1] -> `translation`, of that size.
    Batch, height and width are free; padding is part of the graph (opset 18), dropout is not.

    Args:
        path: the file to write.
        generator: to export.
        metadata: goes along with the architecture, under the key "card".

    Raises:
        ModuleNotFoundError: onnxscript is missing; it names the extra that brings it.
    """
    try:
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"exporting to ONNX needs {error.name}: pip install 'ctmri-utils[export]'"
        ) from error

    generator = deepcopy(generator).cpu().eval()
    architecture = infer_architecture(generator.state_dict())
    side = 2 * generator.multiple + 8
    image = torch.zeros(2, architecture["in_channels"], side, side + 1)
    program = torch.onnx.export(
        generator,
        (image,),
        dynamo=True,
        opset_version=18,
        verbose=False,
        input_names=["image"],
        output_names=["translation"],
        dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
    )

    # The output's sizes are the input's, not the long formula of padding and cropping.
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
        source: a run's folder or its name in the build folder, a checkpoint, weights such as
            data/weights/scans.safetensors, or a file that `load_reference` reads.
        output: .pth (the reference's) or .onnx.
        to: "mri" or "ct", which of the two generators, where there are two. Its averaged weights
            are written.
        grey, padding: see `load_reference`.

    Raises:
        ValueError, FileNotFoundError: the source holds no such generator, or is not there.
    """
    output = Path(output)
    if output.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{output} must end in one of {', '.join(SUFFIXES)}: that names the format"
        )

    contents = recognise(locate(source))
    metadata = {"source": Path(source).name}
    if isinstance(contents, Networks):
        state = choose_network(contents, to)
        generator = network_from_state(state, contents.path, grey, padding)
    else:
        generator = averaged_generator(source, to, padding)
    if to:
        metadata["makes"] = to
    if not isinstance(generator, Generator):
        raise ValueError(f"{source} holds a discriminator, and only generators are exported")

    if output.suffix.lower() == ".pth":
        save_reference(output, generator)
    else:
        export_onnx(output, generator, metadata)


def averaged_generator(source: str | Path, to: str | None, padding: str) -> nn.Module:
    """One of the two generators of a run, a checkpoint or a weights file, on the CPU."""
    model = load_translator(source, padding=padding)
    if to not in model.averaged:
        raise ValueError(
            f"{source} holds two generators: say --to mri for the one that makes MR, or --to ct"
        )
    if model.architecture.ct_map != "linear":
        raise ValueError(
            f"{source} was trained with ct_map = {model.architecture.ct_map!r}, which no other "
            "program undoes: train with ct_map = 'linear' to export"
        )
    return model.averaged[to].cpu()
