"""Networks from and for other programs.

The reference's `*.pth` files and ONNX; `python -m ctmri_utils export`.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from ..cyclegan.networks import (
    Generator,
    convolutions,
    infer_architecture,
    make_discriminator,
    make_generator,
)
from ..files import existing, replacing
from ..machine import build_folder
from .weights import load_translator

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def load_reference(path: str | Path, grey: bool = False) -> nn.Module:
    """The network in a file of the reference, such as latest_net_G_A.pth, its architecture read off
    the weights; float32, in eval mode.

    Any generator or discriminator of the reference, old or new, also with the prefix `module.` of
    DataParallel, and those that `save_reference` writes. `grey` makes a colour network take and
    give one channel, see `one_channel`. Raises FileNotFoundError or ValueError, in one sentence,
    for a file that is missing, damaged, unsafe or something else.
    """
    path = existing(path, "give the path of a network's file")
    try:
        # tensors only: a file cannot run code
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
    # Instance norm kept running statistics before PyTorch 0.4, and ignored them; batch norm's stand
    # beside a weight.
    state = {
        key: tensor
        for key, tensor in state.items()
        if not key.endswith(STATISTICS) or key.rpartition(".")[0] + ".weight" in state
    }
    return rebuilt(state, path, grey)


def rebuilt(state: dict[str, Tensor], path: Path, grey: bool = False) -> nn.Module:
    """The network with these weights; memory is taken only for what the file really holds."""
    if (
        sum(tensor.numel() * tensor.element_size() for tensor in state.values())
        > path.stat().st_size
    ):
        raise ValueError(
            f"{path} claims to hold more numbers than would fit into it: it is damaged or made to "
            "do harm"
        )
    try:
        state = one_channel(state) if grey else state
        architecture = infer_architecture(state)
        with torch.device("meta"):
            network = (make_discriminator if "ndf" in architecture else make_generator)(
                **architecture
            )
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
    """The weights of a network for one channel that does what that of `state` does with a grey
    image in all its channels.

    The first kernels are summed over their inputs, which is exact; the last, of a generator,
    averaged over its outputs before the tanh, which is exact where these agree, as grey ones do.
    """
    architecture, (first, *_, last) = infer_architecture(state), convolutions(state)
    state = state | {first: state[first].sum(1, keepdim=True)}
    if "ngf" in architecture:
        # transposed: inputs come first
        bias, outputs = last.removesuffix("weight") + "bias", int(last == "model.model.3.weight")
        state |= {
            last: state[last].mean(outputs, keepdim=True),
            bias: state[bias].mean(0, keepdim=True),
        }
    return state


def save_reference(path: str | Path, network: nn.Module) -> None:
    """Write the network as the reference does.

    Its state dict alone, which that program loads under such a name as latest_net_G_A.pth.

    Raises ValueError for what it does not have, resize-convolutions and spectral norm.
    """
    state = network.state_dict()
    architecture = infer_architecture(state)
    if architecture.get("upsampling") == "resize" or architecture.get("spectral"):
        raise ValueError(
            "the reference has neither resize-convolutions nor spectral norm: export to .onnx"
        )
    with replacing(path) as temporary:
        torch.save({key: tensor.cpu() for key, tensor in state.items()}, temporary)


def export_onnx(path: str | Path, generator: Generator, metadata: dict) -> None:
    """Write a generator for ONNX runtimes.

    `image` (batch, channels, height, width), float32 in [-1, 1] -> `translation`, of that size.

    Batch, height and width are free; padding is part of the graph (opset 18), dropout is not.
    Architecture and `metadata` go along under the key "card". Raises ModuleNotFoundError, naming
    the extra, where onnxscript is missing.
    """
    try:
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"exporting to ONNX needs {error.name}: pip install 'ctmri-utils[export]'"
        ) from error
    generator = deepcopy(generator).cpu().eval()
    channels, side = (
        infer_architecture(generator.state_dict())["in_channels"],
        2 * generator.multiple + 8,
    )
    image = torch.zeros(2, channels, side, side + 1)
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
    taken, given = (
        values[0].shape for values in (program.model.graph.inputs, program.model.graph.outputs)
    )
    for axis in (0, 2, 3):
        # instead of the long formula of padding and cropping
        given[axis] = taken[axis]
    program.model.metadata_props["card"] = card(generator, metadata)
    with replacing(path) as temporary:
        program.save(temporary)


def card(generator: Generator, metadata: dict) -> str:
    return json.dumps({"architecture": infer_architecture(generator.state_dict()), **metadata})


WRITERS = {
    ".pth": lambda path, generator, metadata: save_reference(path, generator),
    ".onnx": export_onnx,
}


def export(source: str | Path, output: Path, to: str | None = None, grey: bool = False) -> None:
    """Write a generator in the format that the suffix of `output` names.

    .pth (the reference's) or .onnx.

    source: a file of the reference (.pth), weights such as data/weights/scans.safetensors, a
    checkpoint of `fit` (.pt), a run's folder or its name in the build folder. Of the two generators
    in these, `to` ("mri" or "ct") names the one wanted, with its averaged weights. Raises
    ValueError or FileNotFoundError.
    """
    source, output = Path(source), Path(output)
    if output.suffix not in WRITERS:
        raise ValueError(f"{output} must end in one of {', '.join(WRITERS)}: that names the format")
    metadata = {"source": source.name}
    if source.suffix == ".pth":
        generator = load_reference(source, grey)
    else:
        folder = source if source.is_dir() else build_folder() / "runs" / source
        model = load_translator(
            source if source.suffix in (".pt", ".safetensors") else folder / "checkpoint.pt"
        )
        if to not in model.averaged:
            raise ValueError(
                f"{source} holds two generators: say --to mri for the one that makes MR, or --to ct"
            )
        if model.architecture.ct_map != "linear":
            raise ValueError(
                f"{source} was trained with ct_map = {model.architecture.ct_map!r}, which no other "
                "program undoes: train with ct_map = 'linear' to export"
            )
        generator, metadata = model.averaged[to].cpu(), metadata | {"makes": to}
    if not isinstance(generator, Generator):
        raise ValueError(f"{source} holds a discriminator, and only generators are exported")
    WRITERS[output.suffix](output, generator, metadata)


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
