"""Files of the reference in all their layouts, and ONNX.

What is damaged, hostile or foreign is refused in one sentence.
"""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fit_tensors import fit
from reference_cyclegan import resnet_generator

from ctmri_utils.__main__ import main
from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.cyclegan.networks import init_weights
from ctmri_utils.cyclegan.variants import make_discriminator, make_generator
from ctmri_utils.runs.contract import Contract
from ctmri_utils.runs.export import (
    PhysicalGenerator,
    export,
    export_onnx,
    load_reference,
    save_reference,
)
from ctmri_utils.runs.weights import load_translator, save_weights
from ctmri_utils.settings import Architecture, Objective
from ctmri_utils.units import HU

CARD = {"ct": {"low": -1000, "high": 1000, "unit": "HU"}, "seed": 7}


def network(**options):
    torch.manual_seed(0)
    built = init_weights(
        (make_discriminator if "ndf" in options else make_generator)(**options), gain=0.1
    )
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
        channels = state[place + "bias"].shape
        for name, value in (
            ("running_mean", torch.rand(channels)),
            ("running_var", torch.rand(channels)),
        ):
            state[".".join([*head, str(int(index) + 1), name])] = value
        state[".".join([*head, str(int(index) + 1), "num_batches_tracked"])] = torch.tensor(3)
    return state


LAYOUTS = {
    "as it is": lambda state: state,
    "without _metadata": dict,
    "DataParallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "another order": lambda state: dict(sorted(state.items(), reverse=True)),
    "half precision": lambda state: {
        key: value.half() if value.is_floating_point() else value for key, value in state.items()
    },
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


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "options", NETWORKS, ids=lambda options: "-".join(map(str, options.values()))
)
def test_every_layout_of_a_reference_file_gives_the_network_back(tmp_path, options, layout):
    written = network(**options)
    torch.save(LAYOUTS[layout](written.state_dict()), tmp_path / "latest_net_G_A.pth")
    loaded = load_reference(tmp_path / "latest_net_G_A.pth")
    if layout == "half precision":
        written = written.half().float()
    assert not loaded.training and all(
        value.dtype != torch.half for value in loaded.state_dict().values()
    )
    assert torch.equal(
        loaded(images(options.get("in_channels", 1))),
        written(images(options.get("in_channels", 1))),
    )


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
    written = network(name="resnet_3blocks", in_channels=3, out_channels=3, ngf=4).double()
    torch.save(written.state_dict(), tmp_path / "G.pth")
    loaded, image = load_reference(tmp_path / "G.pth").double(), images(3).double()
    # The same arithmetic in another order, float64; the weights pass through float32.
    torch.testing.assert_close(
        loaded(image),
        resnet_generator(
            {key: value.float().double() for key, value in written.state_dict().items()}, image
        ),
        atol=1e-10,
        rtol=0,
    )


@pytest.mark.parametrize("name", ["resnet_2blocks", "unet_32"])
def test_a_colour_generator_becomes_a_grey_one_exactly(tmp_path, name):
    colour = network(name=name, in_channels=3, out_channels=3, ngf=4)
    last, grey = colour.model[-2] if name.startswith("resnet") else colour.model.model[-2], images()
    # one whose pictures are grey
    with torch.no_grad():
        last.weight.copy_(
            (last.weight[:1] if name.startswith("resnet") else last.weight[:, :1]).expand_as(
                last.weight
            )
        )
        last.bias.fill_(0.3)
    torch.save(colour.state_dict(), tmp_path / "G.pth")
    loaded = load_reference(tmp_path / "G.pth", grey=True)
    expected = colour(grey.expand(-1, 3, -1, -1))
    assert expected.std() > 0.05 and torch.equal(expected[:, 0], expected[:, 2])
    # float32, sums in another order
    torch.testing.assert_close(loaded(grey), expected[:, :1], atol=1e-5, rtol=0)


def test_a_colour_generator_whose_pictures_are_not_grey_is_averaged(tmp_path):
    """Before the tanh, so that the grey value lies between the colours'."""
    colour = network(name="resnet_2blocks", in_channels=3, out_channels=3, ngf=4)
    torch.save(colour.state_dict(), tmp_path / "G.pth")
    grey, expected = (
        load_reference(tmp_path / "G.pth", grey=True)(images()),
        colour(images().expand(-1, 3, -1, -1)),
    )
    # atanh magnifies rounding
    torch.testing.assert_close(
        grey, expected.atanh().mean(1, keepdim=True).tanh(), atol=1e-4, rtol=0
    )
    assert (grey >= expected.amin(1, keepdim=True) - 1e-5).all() and (
        grey <= expected.amax(1, keepdim=True) + 1e-5
    ).all()


# the latter's end has no bias
@pytest.mark.parametrize("options", [{"name": "basic"}, {"name": "pixel", "norm": "batch"}])
def test_a_colour_discriminator_judges_grey_as_before(tmp_path, options):
    colour = network(in_channels=3, ndf=4, **options)
    torch.save(colour.state_dict(), tmp_path / "D.pth")
    loaded = load_reference(tmp_path / "D.pth", grey=True)
    torch.testing.assert_close(
        loaded(images()), colour(images().expand(-1, 3, -1, -1)), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    "options", NETWORKS, ids=lambda options: "-".join(map(str, options.values()))
)
def test_what_is_exported_is_the_plain_state_dict(tmp_path, options):
    written = network(**options)
    save_reference(tmp_path / "runs" / "latest_net_G_A.pth", written)
    state = torch.load(tmp_path / "runs" / "latest_net_G_A.pth", weights_only=True)
    assert list(state) == list(written.state_dict()) and all(
        torch.equal(state[key], value) for key, value in written.state_dict().items()
    )
    assert os.listdir(tmp_path / "runs") == ["latest_net_G_A.pth"]


@pytest.mark.parametrize(
    "options",
    [
        {"name": "resnet_1blocks", "ngf": 4, "upsampling": "resize"},
        {"name": "pixel", "ndf": 4, "spectral": True},
    ],
)
def test_what_the_reference_lacks_is_not_exported_to_it(tmp_path, options):
    with pytest.raises(
        ValueError, match="neither resize-convolutions nor spectral norm: export to .onnx"
    ):
        save_reference(tmp_path / "G.pth", network(**options))
    # but read, should it lie in a .pth
    torch.save(network(**options).state_dict(), tmp_path / "G.pth")
    assert torch.equal(load_reference(tmp_path / "G.pth")(images()), network(**options)(images()))


class Hostile:
    """Unpickling this would call a function."""

    def __reduce__(self):
        return print, ("a file ran this",)


RESNET = {"name": "resnet_2blocks", "ngf": 4}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            lambda state: {"model": Hostile()},
            "Python objects .*builtins.print",
        ),
        (lambda state: state["model.1.weight"], "holds no network"),
        (lambda state: {}, "holds no network"),
        (
            lambda state: {"fc.weight": torch.zeros(2, 2)},
            "holds no network .*'fc.weight'",
        ),
        (
            lambda state: {"net.3.weight": torch.zeros(2, 2)},
            "these weights belong to no network known",
        ),
        (
            lambda state: {key: value for key, value in state.items() if key != "model.7.bias"},
            "looks like a ResNet of 2 blocks, but lacks model.7.bias",
        ),
        (
            lambda state: state | {"model.4.weight": torch.zeros(9, 4, 3, 3)},
            r"has model.4.weight in the shape \(9, 4, 3, 3\) instead of \(8, 4, 3, 3\)",
        ),
        (
            lambda state: state | {"model.99.weight": torch.zeros(1, 1, 1, 1)},
            "looks like a ResNet of 2 blocks, but also has model.99.weight",
        ),
        (
            lambda state: state | {"attention": torch.zeros(8)},
            "looks like a ResNet of 2 blocks, but also has attention",
        ),
        (
            lambda state: state | {"model.1.weight": torch.zeros(1).expand(10**5, 10**5, 7, 7)},
            "claims to hold more numbers",
        ),
        (
            lambda state: state | {"model.4.bias": torch.full((8,), torch.nan)},
            "not finite .model.4.bias.",
        ),
    ],
)
@pytest.mark.parametrize("grey", [False, True])
def test_a_foreign_or_hostile_file_gets_one_sentence(tmp_path, capsys, content, sentence, grey):
    torch.save(content(network(**RESNET).state_dict()), tmp_path / "G.pth")
    with pytest.raises(ValueError, match=f"G.pth.*{sentence}") as error:
        load_reference(tmp_path / "G.pth", grey)
    assert "\n" not in str(error.value) and "a file ran this" not in capsys.readouterr().out


def test_a_truncated_or_missing_file_gets_one_sentence(tmp_path):
    path = tmp_path / "G.pth"
    save_reference(path, network(**RESNET))
    whole = path.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="G.pth (is empty|is damaged|.*or is damaged)"):
            load_reference(path)
    with pytest.raises(FileNotFoundError, match="none does not exist"):
        load_reference(tmp_path / "none")


def test_a_write_that_is_cut_short_leaves_the_last_good_file(tmp_path, monkeypatch):
    save_reference(tmp_path / "G.pth", network(**RESNET))
    before = (tmp_path / "G.pth").read_bytes()

    def full_disk(state, path):
        Path(path).write_bytes(b"half a file")
        raise OSError("No space left on device")

    monkeypatch.setattr("torch.save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_reference(tmp_path / "G.pth", network(**RESNET))
    assert (tmp_path / "G.pth").read_bytes() == before and os.listdir(tmp_path) == ["G.pth"]


def runs_as_pytorch_does(path, generator, in_channels=1, out_channels=1):
    """Sizes that are padded, 1 x 1 in the U-Net's depth, and larger than the traced example.

    More images than that; a blank slice.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [taken], [given] = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.shape) == ("image", ["batch", in_channels, "height", "width"])
    assert (given.name, given.shape) == ("translation", ["batch", out_channels, "height", "width"])
    for image in [
        *(
            images(in_channels, *shape)
            for shape in [(1, 16, 16), (3, 64, 48), (1, 33, 51), (2, 96, 160)]
        ),
        torch.full((1, in_channels, 32, 32), -1.0),
    ]:
        [found] = session.run(None, {"image": image.numpy()})
        # float32, the same layers in another library; instance norm magnifies rounding where a map
        # is nearly flat.
        np.testing.assert_allclose(found, generator(image).detach().numpy(), atol=2e-4, rtol=0)
    return json.loads(session.get_modelmeta().custom_metadata_map["card"])


@pytest.mark.parametrize(
    "options",
    [
        {"name": "unet_16", "ngf": 4, "in_channels": 2},
        {
            "name": "resnet_1blocks",
            "ngf": 4,
            "norm": "batch",
            "upsampling": "resize",
            "dropout": True,
        },
    ],
)
def test_onnx_computes_what_pytorch_does_at_any_size(tmp_path, options):
    generator = network(**options)
    export_onnx(tmp_path / "G.onnx", generator.train(), CARD)
    assert generator.training and "Dropout" not in {
        node.op_type for node in onnx.load(tmp_path / "G.onnx").graph.node
    }
    card = runs_as_pytorch_does(
        tmp_path / "G.onnx", generator.eval(), options.get("in_channels", 1)
    )
    assert card["ct"] == CARD["ct"] and card["architecture"]["name"] == options["name"]
    assert os.listdir(tmp_path) == ["G.onnx"]  # the weights are inside


def test_a_missing_exporter_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"ONNX needs onnxscript: pip install 'ctmri-utils\[course\]'"
    ):
        export_onnx(tmp_path / "G.onnx", network(**RESNET), CARD)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A build folder with the checkpoint of a run of two steps."""
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path))
    torch.manual_seed(0)
    model, scans = CycleGAN(Architecture(4, 4, 1, 1)), torch.rand(2, 1, 32, 32) * 2 - 1
    fit(
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
    sources = {
        "scans-ci-3": model,
        str(run): model,
        str(run / "checkpoint.pt"): model,
        str(tmp_path / "pair.safetensors"): pair,
    }
    for source, expected in sources.items():
        assert main(["export", source, str(tmp_path / "G.pth"), "--to", to]) == 0
        assert "G.pth is written" in capsys.readouterr().out
        # What translates has the layers that are faster on a CPU: float32, another order of sums.
        torch.testing.assert_close(
            load_reference(tmp_path / "G.pth")(images()),
            expected.translate(images(), to),
            atol=1e-5,
            rtol=0,
        )


def test_the_card_in_an_onnx_file_says_what_its_network_makes(run, tmp_path):
    assert main(["export", str(run), str(tmp_path / "G.onnx"), "--to", "ct"]) == 0
    card = {entry.key: entry.value for entry in onnx.load(tmp_path / "G.onnx").metadata_props}[
        "card"
    ]
    assert {"makes": "ct", "source": run.name}.items() <= json.loads(card).items()


def test_a_colour_file_is_exported_to_grey_onnx_if_asked(tmp_path):
    save_reference(
        tmp_path / "G.pth", network(name="resnet_1blocks", in_channels=3, out_channels=3, ngf=4)
    )
    assert main(["export", str(tmp_path / "G.pth"), str(tmp_path / "G.onnx"), "--grey"]) == 0
    assert (
        runs_as_pytorch_does(tmp_path / "G.onnx", load_reference(tmp_path / "G.pth", grey=True))[
            "source"
        ]
        == "G.pth"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["scans-ci-3", "G.pth"], "holds two generators"),
        (["scans-ci-3", "G.h5", "--to", "ct"], "G.h5 must end in one of .pth"),
        (["scans-ci-9", "G.pth", "--to", "ct"], "does not exist"),
        (["nowhere.pth", "G.onnx"], "nowhere.pth does not exist"),
        (["D.pth", "D.onnx"], "holds a discriminator"),
        (["nowhere.safetensors", "G.pth"], "nowhere.safetensors does not exist"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_sentence(
    run, tmp_path, monkeypatch, capsys, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    save_reference("D.pth", network(name="pixel", ndf=4))
    assert main(["export", *arguments]) == 1
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
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
        save_weights(model, found[ct_map], Contract(32, 7.0, "noise", ct_map=ct_map))
    return found


def session_and_card(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session, json.loads(session.get_modelmeta().custom_metadata_map["card"])


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
        RoundTrip(torch.nn.Identity(), "ct", ct_map).eval(), (image,), dynamo=True, verbose=False
    )
    program.save(tmp_path / "map.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "map.onnx")
    [name] = [entry.name for entry in session.get_inputs()]
    [found] = session.run(None, {name: image.numpy()})
    np.testing.assert_allclose(found, image.numpy(), atol=1e-3, rtol=0)


def test_a_pth_names_the_map_that_it_cannot_hold(pairs, tmp_path):
    export(pairs["linear"], tmp_path / "linear.pth", "ct")
    for ct_map in ("piecewise", "two_windows"):
        with pytest.raises(ValueError, match=rf"units.CT_MAPS\['{ct_map}'\].*export to .onnx"):
            export(pairs[ct_map], tmp_path / "G.pth", "ct")
    assert os.listdir(tmp_path) == ["linear.pth"]
