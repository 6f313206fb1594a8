"""Networks from and for other programs: the reference's .pth files, and ONNX.

`python -m ctmri_utils export RUN_OR_CHECKPOINT OUT`.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from ..cyclegan.networks import Generator
from ..cyclegan.variants import (
    convolutions,
    infer_architecture,
    make_discriminator,
    make_generator,
)
from ..files import atomic_write, existing
from ..machine import build_folder
from .weights import load_translator

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
SUFFIXES = (".pth", ".onnx")


def load_reference(path: str | Path, grey: bool = False) -> nn.Module:
    """The network in a file of the reference, its architecture read off the weights.

    Any generator or discriminator of the reference, old or new, also with the prefix `module.` of
    DataParallel, and those that `save_reference` writes.

    Args:
        path: such as latest_net_G_A.pth.
        grey: make a colour network take and give one channel, see `one_channel`.

    Returns:
        A network of this package, float32, in eval mode.

    Raises:
        FileNotFoundError, ValueError: in one sentence, a file that is missing, damaged, unsafe or
            something else.
    """
    path = existing(path, "give the path of a network's file")
    try:
        # Tensors only, so that a file cannot run code.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} is damaged, or holds more than tensors ({type(error).__name__}): none of it "
            "ran, get it anew"
        ) from error

    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in state.items()
    ):
        raise ValueError(
            f"{path} holds no single network: the reference saves each in a file of its own, such "
            "as latest_net_G_A.pth"
        )

    state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    return network_from_state(without_unused_statistics(state), path, grey)


def without_unused_statistics(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the running statistics of instance norm.

    Before PyTorch 0.4 it kept them, and ignored them. Batch norm's stand beside a weight.
    """
    used = {}
    for key, tensor in state.items():
        layer = key.rpartition(".")[0]
        if not key.endswith(STATISTICS) or f"{layer}.weight" in state:
            used[key] = tensor
    return used


def network_from_state(state: dict[str, Tensor], path: Path, grey: bool = False) -> nn.Module:
    """The network with these weights; memory is taken only for what the file really holds."""
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if size_bytes > path.stat().st_size:
        raise ValueError(
            f"{path} claims to hold more numbers than would fit into it: it is damaged or made to "
            "do harm"
        )

    try:
        if grey:
            state = one_channel(state)
        architecture = infer_architecture(state)
        make_network = make_discriminator if "ndf" in architecture else make_generator
        with torch.device("meta"):
            network = make_network(**architecture)
        state = {
            key: tensor.float() if tensor.is_floating_point() else tensor
            for key, tensor in state.items()
        }
        network.load_state_dict(state, assign=True)
    except (LookupError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} fits no network of this package: {' '.join(str(error).split())[:200]}"
        ) from error

    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise ValueError(
            f"{path} holds weights that are not finite: its training had failed, take an earlier "
            "checkpoint"
        )
    return network.eval()


def one_channel(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights for one channel of a network that was made for several.

    It does what the network does with a grey image in all its channels. The first kernels are
    summed over their inputs, which is exact. The last, of a generator, are averaged over its
    outputs before the tanh, which is exact where these agree, as grey ones do.
    """
    architecture = infer_architecture(state)
    kernels = convolutions(state)
    first, last = kernels[0], kernels[-1]
    grey = state | {first: state[first].sum(1, keepdim=True)}

    if "ngf" in architecture:
        # The outputs come first, but second in the U-Net's last, transposed convolution.
        outputs = 1 if last == "model.model.3.weight" else 0
        bias = last.removesuffix("weight") + "bias"
        grey[last] = grey[last].mean(outputs, keepdim=True)
        grey[bias] = grey[bias].mean(0, keepdim=True)
    return grey


def save_reference(path: str | Path, network: nn.Module) -> None:
    """Write the network's state dict alone, as the reference does.

    That program loads it under such a name as latest_net_G_A.pth.

    Raises:
        ValueError: it has what the reference lacks, resize-convolutions or spectral norm.
    """
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


def export(source: str | Path, output: Path, to: str | None = None, grey: bool = False) -> None:
    """Write a generator in the format that the suffix of `output` names.

    Args:
        source: a file of the reference (.pth), weights such as data/weights/scans.safetensors, a
            checkpoint of `fit` (.pt), a run's folder or its name in the build folder.
        output: .pth (the reference's) or .onnx.
        to: "mri" or "ct", which of the two generators, where there are two. Its averaged weights
            are written.
        grey: see `load_reference`.

    Raises:
        ValueError, FileNotFoundError: the source holds no such generator, or is not there.
    """
    source, output = Path(source), Path(output)
    if output.suffix not in SUFFIXES:
        raise ValueError(
            f"{output} must end in one of {', '.join(SUFFIXES)}: that names the format"
        )

    metadata = {"source": source.name}
    if source.suffix == ".pth":
        generator = load_reference(source, grey)
    else:
        generator = _averaged_generator(source, to)
        metadata["makes"] = to
    if not isinstance(generator, Generator):
        raise ValueError(f"{source} holds a discriminator, and only generators are exported")

    if output.suffix == ".pth":
        save_reference(output, generator)
    else:
        export_onnx(output, generator, metadata)


def _averaged_generator(source: Path, to: str | None) -> nn.Module:
    """One of the two generators of a run, a checkpoint or a weights file, on the CPU."""
    if source.suffix in (".pt", ".safetensors"):
        path = source
    elif source.is_dir():
        path = source / "checkpoint.pt"
    else:
        path = build_folder() / "runs" / source / "checkpoint.pt"

    model = load_translator(path)
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


def add_command(commands) -> None:
    """Add `export` to the sub-commands of `python -m ctmri_utils`."""
    parser = commands.add_parser(
        "export", help="write a generator for other programs: .pth of the reference, or .onnx"
    )
    parser.add_argument(
        "source",
        metavar="RUN_OR_CHECKPOINT",
        help="a run's folder or name, or a .pt, .pth or .safetensors file",
    )
    parser.add_argument(
        "output", type=Path, metavar="OUT", help="the file to write; .pth or .onnx names the format"
    )
    parser.add_argument(
        "--to",
        choices=("mri", "ct"),
        help="which of a run's two generators: the one that makes MR, or CT",
    )
    parser.add_argument(
        "--grey",
        action="store_true",
        help="make a colour network of the reference take and give one channel",
    )
    parser.set_defaults(run=command)


def command(options) -> None:
    """`python -m ctmri_utils export`."""
    export(options.source, options.output, options.to, options.grey)
    print(f"{options.output} is written. For research and teaching, not for clinical use.")
