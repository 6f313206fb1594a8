"""Files of the reference in all their layouts, and ONNX.

What is damaged, hostile or foreign is refused in one sentence.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.fit_tensors import assert_same_bits, fit_tensors
from helpers.reference_cyclegan import resnet_generator

from ctmri_utils.__main__ import main
from ctmri_utils.cyclegan.architectures import make_discriminator, make_generator
from ctmri_utils.cyclegan.model import CycleGAN, Translator
from ctmri_utils.cyclegan.networks import init_weights
from ctmri_utils.runs.contract import Contract
from ctmri_utils.runs.export import (
    PhysicalGenerator,
    export,
    export_onnx,
    save_reference,
)
from ctmri_utils.runs.reference import load_reference
from ctmri_utils.runs.weights import load_translator, save_weights
from ctmri_utils.settings import Architecture, Objective
from ctmri_utils.units import HU

CARD = {"ct": {"low": -1000, "high": 1000, "unit": "HU"}, "seed": 7}


def network(**options):
    """A network whose weights, biases and statistics all matter."""
    torch.manual_seed(0)
    make = make_discriminator if "ndf" in options else make_generator
    built = init_weights(make(**options), gain=0.1)
    for module in built.modules():
        if getattr(module, "bias", None) is not None:
            torch.nn.init.normal_(module.bias, std=0.1)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean)
    return built.eval()


def images(channels=1, n=2, height=32, width=48):
    torch.manual_seed(1)
    return torch.rand(n, channels, height, width) * 2 - 1


def running_statistics(state):
    """As before PyTorch 0.4.

    Instance norm wrote statistics that it did not use, under the place after each convolution but
    the last.
    """
    places = [key.removesuffix("weight") for key in state if key.endswith("weight")][:-1]
    for place in places:
        *head, index = place.rstrip(".").split(".")
        norm = ".".join([*head, str(int(index) + 1)])
        for name in ("running_mean", "running_var"):
            state[f"{norm}.{name}"] = torch.rand(state[place + "bias"].shape)
        state[f"{norm}.num_batches_tracked"] = torch.tensor(3)
    return state


def in_half(state):
    return {
        key: value.half() if value.is_floating_point() else value for key, value in state.items()
    }


LAYOUTS = {
    "as it is": lambda state: state,
    "without _metadata": dict,
    "DataParallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "another order": lambda state: dict(sorted(state.items(), reverse=True)),
    "half precision": in_half,
    "PyTorch 0.4.0": lambda state: {
        key: value for key, value in state.items() if "num_batches_tracked" not in key
    },
}
NETWORKS = [
    {"name": "resnet_9blocks", "in_channels": 3, "out_channels": 3, "ngf": 4},
    {"name": "resnet_6blocks", "ngf": 4, "norm": "batch"},
    {"name": "resnet_2blocks", "ngf": 4, "norm": "none"},
    {"name": "resnet_2blocks", "ngf": 4, "dropout": True},
    {"name": "resnet_2blocks", "ngf": 4, "norm": "batch", "dropout": True},
    {"name": "unet_32", "ngf": 4, "out_channels": 2, "dropout": True},
    {"name": "unet_32", "ngf": 4, "norm": "batch"},
    {"name": "basic", "in_channels": 3, "ndf": 4},
    {"name": "n_layers", "ndf": 4, "n_layers": 2, "norm": "batch"},
    {"name": "pixel", "ndf": 4},
]


def name_of(options):
    return "-".join(map(str, options.values()))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", NETWORKS, ids=name_of)
def test_every_layout_of_a_reference_file_gives_the_network_back(tmp_path, options, layout):
    written = network(**options)
    torch.save(LAYOUTS[layout](written.state_dict()), tmp_path / "latest_net_G_A.pth")
    loaded = load_reference(tmp_path / "latest_net_G_A.pth")
    if layout == "half precision":
        written = written.half().float()

    assert not loaded.training
    assert torch.half not in {value.dtype for value in loaded.state_dict().values()}
    image = images(options.get("in_channels", 1))
    assert torch.equal(loaded(image), written(image))


@pytest.mark.parametrize(
    "options",
    [
        {"name": "resnet_2blocks", "ngf": 4},
        {"name": "resnet_2blocks", "ngf": 4, "dropout": True},
        {"name": "unet_32", "ngf": 4},
        {"name": "n_layers", "ndf": 4, "n_layers": 2},
    ],
)
def test_unused_statistics_of_old_instance_norm_are_dropped(tmp_path, options):
    written = network(**options)
    torch.save(running_statistics(written.state_dict()), tmp_path / "old.pth")
    assert torch.equal(load_reference(tmp_path / "old.pth")(images()), written(images()))


def test_a_file_from_before_pytorch_1_6_is_read(tmp_path):
    written = network(name="resnet_2blocks", ngf=4)
    torch.save(written.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(load_reference(tmp_path / "old.pth")(images()), written(images()))


def test_a_loaded_network_computes_what_the_published_one_does(tmp_path):
    """The same arithmetic in another order, float64."""
    written = network(name="resnet_3blocks", in_channels=3, out_channels=3, ngf=4)
    torch.save(written.state_dict(), tmp_path / "G.pth")
    image = images(3).double()
    loaded = load_reference(tmp_path / "G.pth").double()
    weights = {key: value.double() for key, value in written.state_dict().items()}
    torch.testing.assert_close(loaded(image), resnet_generator(weights, image), atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", ["resnet_2blocks", "unet_32"])
def test_a_colour_generator_becomes_a_grey_one_exactly(tmp_path, name):
    colour = network(name=name, in_channels=3, out_channels=3, ngf=4)

    # One whose pictures are grey. The U-Net's last layer is transposed: its outputs come second.
    last = colour.model[-2] if name == "resnet_2blocks" else colour.model.model[-2]
    first = last.weight[:1] if name == "resnet_2blocks" else last.weight[:, :1]
    with torch.no_grad():
        last.weight.copy_(first.expand_as(last.weight))
        last.bias.fill_(0.3)

    torch.save(colour.state_dict(), tmp_path / "G.pth")
    grey = load_reference(tmp_path / "G.pth", grey=True)(images())
    expected = colour(images().expand(-1, 3, -1, -1))
    assert expected.std() > 0.05 and torch.equal(expected[:, 0], expected[:, 2])
    # float32, sums in another order
    torch.testing.assert_close(grey, expected[:, :1], atol=1e-5, rtol=0)


def test_a_colour_generator_is_averaged_over_its_channels(tmp_path):
    """Before the tanh, so that the grey value lies between the colours'."""
    colour = network(name="resnet_2blocks", in_channels=3, out_channels=3, ngf=4)
    torch.save(colour.state_dict(), tmp_path / "G.pth")
    grey = load_reference(tmp_path / "G.pth", grey=True)(images())
    expected = colour(images().expand(-1, 3, -1, -1)).atanh().mean(1, keepdim=True).tanh()
    # atanh magnifies rounding
    torch.testing.assert_close(grey, expected, atol=1e-4, rtol=0)


# the latter's end has no bias
@pytest.mark.parametrize("options", [{"name": "basic"}, {"name": "pixel", "norm": "batch"}])
def test_a_colour_discriminator_judges_grey_as_before(tmp_path, options):
    colour = network(in_channels=3, ndf=4, **options)
    torch.save(colour.state_dict(), tmp_path / "D.pth")
    grey = load_reference(tmp_path / "D.pth", grey=True)(images())
    expected = colour(images().expand(-1, 3, -1, -1))
    torch.testing.assert_close(grey, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", NETWORKS, ids=name_of)
def test_what_is_exported_is_the_plain_state_dict(tmp_path, options):
    written = network(**options)
    save_reference(tmp_path / "runs" / "latest_net_G_A.pth", written)
    state = torch.load(tmp_path / "runs" / "latest_net_G_A.pth", weights_only=True)
    assert list(state) == list(written.state_dict())
    assert_same_bits(state, written.state_dict())
    assert os.listdir(tmp_path / "runs") == ["latest_net_G_A.pth"]


@pytest.mark.parametrize(
    "options",
    [
        {"name": "resnet_1blocks", "ngf": 4, "upsampling": "resize"},
        {"name": "pixel", "ndf": 4, "spectral": True},
    ],
)
def test_what_the_reference_lacks_is_not_exported_to_it(tmp_path, options):
    with pytest.raises(ValueError):
        save_reference(tmp_path / "G.pth", network(**options))
    assert not any(tmp_path.iterdir())

    # It is read, should it lie in a .pth.
    torch.save(network(**options).state_dict(), tmp_path / "G.pth")
    assert torch.equal(load_reference(tmp_path / "G.pth")(images()), network(**options)(images()))


class Hostile:
    """Unpickling this would call a function."""

    def __reduce__(self):
        return print, ("a file ran this",)


RESNET = {"name": "resnet_2blocks", "ngf": 4}


def without(name):
    return lambda state: {key: value for key, value in state.items() if key != name}


def having(name, tensor):
    return lambda state: state | {name: tensor}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (lambda state: {"model": Hostile()}, "builtins.print"),
        (lambda state: state["model.1.weight"], "no network"),
        (lambda state: {}, "no network"),
        (lambda state: {"fc.weight": torch.zeros(2, 2)}, "'fc.weight'"),
        (lambda state: {"net.3.weight": torch.zeros(2, 2)}, "no network"),
        (without("model.7.bias"), "lacks model.7.bias"),
        (having("model.4.weight", torch.zeros(9, 4, 3, 3)), r"model.4.weight .*\(9, 4, 3, 3\)"),
        (having("model.99.weight", torch.zeros(1, 1, 1, 1)), "also has model.99.weight"),
        (having("attention", torch.zeros(8)), "also has attention"),
        (having("model.1.weight", torch.zeros(1).expand(10**5, 10**5, 7, 7)), "more numbers"),
        (having("model.4.bias", torch.full((8,), torch.nan)), "not finite .model.4.bias."),
    ],
)
@pytest.mark.parametrize("grey", [False, True])
def test_a_foreign_or_hostile_file_is_refused_and_not_run(tmp_path, capsys, content, named, grey):
    torch.save(content(network(**RESNET).state_dict()), tmp_path / "G.pth")
    with pytest.raises(ValueError, match=named) as error:
        load_reference(tmp_path / "G.pth", grey)
    assert "G.pth" in str(error.value) and "\n" not in str(error.value)
    assert "a file ran this" not in capsys.readouterr().out


def test_a_truncated_or_missing_file_is_refused(tmp_path):
    path = tmp_path / "G.pth"
    save_reference(path, network(**RESNET))
    whole = path.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="G.pth"):
            load_reference(path)
    with pytest.raises(FileNotFoundError, match="none"):
        load_reference(tmp_path / "none")


def test_a_write_that_is_cut_short_leaves_the_last_good_file(tmp_path, monkeypatch):
    save_reference(tmp_path / "G.pth", network(**RESNET))
    before = (tmp_path / "G.pth").read_bytes()

    def full_disk(state, path):
        Path(path).write_bytes(b"half a file")
        raise OSError("No space left on device")

    monkeypatch.setattr("torch.save", full_disk)
    with pytest.raises(OSError):
        save_reference(tmp_path / "G.pth", network(**RESNET))
    assert (tmp_path / "G.pth").read_bytes() == before and os.listdir(tmp_path) == ["G.pth"]


def session_and_card(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session, json.loads(session.get_modelmeta().custom_metadata_map["card"])


def runs_as_pytorch_does(path, generator, in_channels=1):
    """Sizes that are padded, 1 x 1 in the U-Net's depth, and larger than the traced example.

    More images than that; a blank slice.
    """
    session, card = session_and_card(path)
    [taken], [given] = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.shape) == ("image", ["batch", in_channels, "height", "width"])
    assert (given.name, given.shape) == ("translation", ["batch", 1, "height", "width"])

    shapes = [(1, 16, 16), (3, 64, 48), (1, 33, 51), (2, 96, 160)]
    tried = [images(in_channels, *shape) for shape in shapes]
    for image in [*tried, torch.full((1, in_channels, 32, 32), -1.0)]:
        [found] = session.run(None, {"image": image.numpy()})
        # float32, the same layers in another library; instance norm magnifies rounding where a map
        # is nearly flat.
        np.testing.assert_allclose(found, generator(image).detach().numpy(), atol=2e-4, rtol=0)
    return card


ONNX_NETWORKS = [
    {"name": "unet_16", "ngf": 4, "in_channels": 2},
    {"name": "resnet_1blocks", "ngf": 4, "norm": "batch", "upsampling": "resize", "dropout": True},
]


@pytest.mark.parametrize("options", ONNX_NETWORKS)
def test_onnx_computes_what_pytorch_does_at_any_size(tmp_path, options):
    generator = network(**options).train()
    export_onnx(tmp_path / "G.onnx", generator, CARD)
    assert generator.training

    # The weights are inside, and dropout is not.
    assert os.listdir(tmp_path) == ["G.onnx"]
    assert "Dropout" not in {node.op_type for node in onnx.load(tmp_path / "G.onnx").graph.node}
    in_channels = options.get("in_channels", 1)
    card = runs_as_pytorch_does(tmp_path / "G.onnx", generator.eval(), in_channels)
    assert card.items() > CARD.items() and card["architecture"]["name"] == options["name"]


def test_a_missing_exporter_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError, match=r"onnxscript.*ctmri-utils\[course\]"):
        export_onnx(tmp_path / "G.onnx", network(**RESNET), CARD)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A build folder with the checkpoint of a run of two steps."""
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path))
    torch.manual_seed(0)
    model, scans = CycleGAN(Architecture(4, 4, 1, 1)), torch.rand(2, 1, 32, 32) * 2 - 1
    fit_tensors(
        model,
        scans,
        scans,
        steps=2,
        batch_size=1,
        seed=3,
        checkpoint=tmp_path / "runs" / "scans-ci-3" / "checkpoint.pt",
    )
    return tmp_path / "runs" / "scans-ci-3"


@pytest.mark.parametrize("to", ["mri", "ct"])
def test_a_run_or_weights_are_exported_one_direction_a_file(run, tmp_path, to, capsys):
    model = load_translator(run / "checkpoint.pt")
    save_weights(model, tmp_path / "pair.safetensors")
    pair = load_translator(tmp_path / "pair.safetensors")
    sources = {"scans-ci-3": model, run: model, tmp_path / "pair.safetensors": pair}
    for source, expected in sources.items():
        assert main(["export", str(source), str(tmp_path / "G.pth"), "--to", to]) == 0
        assert "G.pth is written" in capsys.readouterr().out
        # What translates has the layers that are faster on a CPU: float32, another order of sums.
        exported = load_reference(tmp_path / "G.pth")(images())
        expected = expected.translate(images(), to)
        torch.testing.assert_close(exported, expected, atol=1e-5, rtol=0)


def test_the_card_in_an_onnx_file_says_what_its_network_makes(run, tmp_path):
    assert main(["export", str(run), str(tmp_path / "G.onnx"), "--to", "ct"]) == 0
    _, card = session_and_card(tmp_path / "G.onnx")
    assert (card["makes"], card["source"]) == ("ct", run.name)


def test_a_colour_file_is_exported_to_grey_onnx_if_asked(tmp_path):
    colour = network(name="resnet_1blocks", in_channels=3, out_channels=3, ngf=4)
    save_reference(tmp_path / "G.pth", colour)
    assert main(["export", str(tmp_path / "G.pth"), str(tmp_path / "G.onnx"), "--grey"]) == 0
    grey = load_reference(tmp_path / "G.pth", grey=True)
    assert runs_as_pytorch_does(tmp_path / "G.onnx", grey)["source"] == "G.pth"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("scans-ci-3 G.pth", "holds two generators"),
        ("scans-ci-3 G.h5 --to ct", "G.h5"),
        ("scans-ci-9 G.pth --to ct", "scans-ci-9"),
        ("nowhere.pth G.onnx", "nowhere.pth"),
        ("D.pth D.onnx", "holds a discriminator"),
    ],
)
def test_what_cannot_be_exported_leaves_no_file(run, tmp_path, monkeypatch, capsys, words, named):
    monkeypatch.chdir(tmp_path)
    save_reference("D.pth", network(name="pixel", ndf=4))
    assert main(["export", *words.split()]) == 1
    message = capsys.readouterr().err
    assert named in message and message.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["D.pth", "runs"]


MAPS = ("linear", "piecewise", "two_windows")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Weights with a contract, by their CT map."""
    folder, found = tmp_path_factory.mktemp("pairs"), {}
    for ct_map in MAPS:
        torch.manual_seed(0)
        model = CycleGAN(Architecture(4, 4, 1, 1, ct_map=ct_map), Objective(identity=0))
        for generator in model.averaged.values():
            # Far from the middle of the range too.
            init_weights(generator, gain=0.3)
        found[ct_map] = folder / f"{ct_map}.safetensors"
        model.contract = Contract(32, 7.0, "noise", ct_map=ct_map)
        save_weights(model, found[ct_map])
    return found


@pytest.mark.parametrize("ct_map", MAPS)
@pytest.mark.parametrize("to", ["mri", "ct"])
def test_onnx_takes_and_gives_hu_whatever_the_map(pairs, tmp_path, ct_map, to):
    export(pairs[ct_map], tmp_path / "G.onnx", to)
    session, card = session_and_card(tmp_path / "G.onnx")
    [taken], [given] = session.get_inputs(), session.get_outputs()
    assert taken.shape == given.shape == ["batch", 1, "height", "width"]

    model = load_translator(pairs[ct_map])
    image = images(height=33, width=52)
    if to == "mri":
        # Beyond the range too, which is clipped.
        found = session.run(None, {"image": (image * 1500).numpy()})[0]
        expected, tolerance = model.translate(HU.to_network(image * 1500), "mri"), 1e-4
    else:
        found = session.run(None, {"image": image.numpy()})[0]
        # HU: the same layers in another library, over a range of 2000.
        expected, tolerance = HU.from_network(model.translate(image, "ct")), 0.1
        assert expected.std() > 30
    np.testing.assert_allclose(found, expected.numpy(), atol=tolerance, rtol=0)

    units = [card["input"], card["output"]]
    assert units[to == "ct"] == "CT in HU" and "percentiles 0.5 and 99.5" in units[to == "mri"]
    assert card["contract"]["makes"] == [to] and card["contract"]["ct_map"] == ct_map


@pytest.mark.parametrize("ct_map", MAPS)
def test_the_map_itself_is_exact_to_a_thousandth_of_a_hu(tmp_path, ct_map):
    """From HU through encode and decode to HU, in ONNX alone."""

    class RoundTrip(PhysicalGenerator):
        def forward(self, image):
            network = self.ct_map.encode(self.scale.to_network(image))
            return self.scale.from_network(self.ct_map.decode(network))

    image = torch.linspace(-999, 999, 64 * 64).reshape(1, 1, 64, 64)
    program = torch.onnx.export(
        RoundTrip(Translator(Architecture(4, 4, 1, 1, ct_map=ct_map)), "ct").eval(),
        (image,),
        dynamo=True,
        verbose=False,
    )
    program.save(tmp_path / "map.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "map.onnx")
    [name] = [entry.name for entry in session.get_inputs()]
    [found] = session.run(None, {name: image.numpy()})
    np.testing.assert_allclose(found, image.numpy(), atol=1e-3, rtol=0)


def test_a_pth_cannot_hold_a_ct_map(pairs, tmp_path):
    export(pairs["linear"], tmp_path / "linear.pth", "ct")
    for ct_map in ("piecewise", "two_windows"):
        with pytest.raises(ValueError):
            export(pairs[ct_map], tmp_path / "G.pth", "ct")
    assert os.listdir(tmp_path) == ["linear.pth"]
