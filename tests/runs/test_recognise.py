"""What is this file: one answer for export, translate, load_translator and start.

Whatever wraps a network, what is loaded computes what the published one does.
"""

import errno
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.fit_tensors import train_small
from helpers.published_networks import (
    Patches,
    Resnet,
    Unet,
    blurred_noise,
    drawn,
    with_grey_pictures,
)
from safetensors.torch import save_file

from ctmri_utils.__main__ import main
from ctmri_utils.cyclegan import CycleGAN
from ctmri_utils.runs import load_reference, load_translator, save_weights
from ctmri_utils.runs.locations import SHIPPED, locate
from ctmri_utils.runs.recognise import Networks, SavedModel, recognise
from ctmri_utils.settings import Architecture

EXTRACTOR = Path(__file__).parents[2] / "data/weights/ctmri-small-v1.safetensors"

# float32, the same sums in another order
CLOSE = {"atol": 1e-5, "rtol": 0}


def with_prefix(prefix, state):
    return {prefix + key: tensor for key, tensor in state.items()}


def computes(path, published, channels, **options):
    """Whether the network in a file computes what the published one does, on images of texture."""
    images = blurred_noise(channels)
    expected = published(images)
    assert expected.std() > 0.02
    torch.testing.assert_close(load_reference(path, **options)(images), expected, **CLOSE)


WRAPPED = {
    "module twice": lambda state: with_prefix("module.module.", state),
    "compiled": lambda state: with_prefix("_orig_mod.", state),
    "compiled inside": lambda state: {
        key.replace("model.", "model._orig_mod.", 1): tensor for key, tensor in state.items()
    },
    "compiled in DataParallel": lambda state: with_prefix("module._orig_mod.", state),
    "G_AB": lambda state: with_prefix("G_AB.", state),
    "netG_A in module": lambda state: with_prefix("module.netG_A.", state),
    "Lightning": lambda state: {"state_dict": with_prefix("generator.", state), "epoch": 3},
    "Lightning's model": lambda state: {"state_dict": with_prefix("model.", state)},
    "a dict of networks": lambda state: {"G_A": state, "epoch": torch.tensor(5)},
    "with an optimizer": lambda state: {
        "model": state,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]},
    },
}
PUBLISHED = {"resnet": lambda: (Resnet(), 3), "unet": lambda: (Unet(), 1)}


@pytest.mark.parametrize("wrapped", WRAPPED)
@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_network_is_found_in_whatever_wraps_it(tmp_path, kind, wrapped):
    network, channels = PUBLISHED[kind]()
    published = drawn(network)
    torch.save(WRAPPED[wrapped](published.state_dict()), tmp_path / "model.ckpt")
    computes(tmp_path / "model.ckpt", published, channels)


@pytest.mark.parametrize("name", ["G.safetensors", "G.SafeTensors", "G.PTH", "G.bin", "G"])
def test_what_is_inside_decides_and_not_the_name(tmp_path, name):
    published = drawn(Resnet())
    if name.lower().endswith("safetensors"):
        save_file(published.state_dict(), tmp_path / name)
    else:
        torch.save(published.state_dict(), tmp_path / name)
    computes(tmp_path / name, published, 3)


@pytest.mark.parametrize("dropout", [False, True])
def test_blocks_without_padding_layers_pad_with_zeros(tmp_path, dropout):
    published = drawn(Resnet(padding="zero", dropout=dropout))
    torch.save(published.state_dict(), tmp_path / "G.pth")
    computes(tmp_path / "G.pth", published, 3)


def test_blocks_that_replicate_are_read_if_it_is_said(tmp_path):
    published = drawn(Resnet(padding="replicate"))
    torch.save(published.state_dict(), tmp_path / "G.pth")
    computes(tmp_path / "G.pth", published, 3, padding="replicate")
    images = blurred_noise(3)
    assert (load_reference(tmp_path / "G.pth")(images) - published(images)).abs().max() > 0.01


@pytest.mark.parametrize(
    ("network", "padding"),
    [
        (lambda: Resnet(padding="zero"), "replicate"),
        (Unet, "replicate"),
        (Patches, "replicate"),
        (Resnet, "zero"),
    ],
)
def test_padding_that_the_weights_contradict_is_refused(tmp_path, network, padding):
    torch.save(drawn(network()).state_dict(), tmp_path / "G.pth")
    with pytest.raises(ValueError, match=f"G.pth .*padding='{padding}'"):
        load_reference(tmp_path / "G.pth", padding=padding)


def test_old_spectral_norm_is_todays(tmp_path):
    published = drawn(Patches(wrap=torch.nn.utils.spectral_norm))
    # Some steps of its power iteration, as a training makes.
    published.train()(blurred_noise(3))
    published.eval()
    state = published.state_dict()
    assert "model.0.weight_orig" in state
    torch.save(state, tmp_path / "D.pth")
    computes(tmp_path / "D.pth", published, 3)


def test_one_of_two_generators_is_chosen_by_its_name(tmp_path):
    networks = {"G_AB": drawn(Resnet(1, 1), 1), "G_BA": drawn(Resnet(1, 1), 2)}
    networks["D_A"] = drawn(Patches(1))
    state = {}
    for name, network in networks.items():
        state |= with_prefix(f"{name}.", network.state_dict())
    path = tmp_path / "epoch=3.ckpt"
    torch.save({"state_dict": state}, path)

    computes(path, networks["G_AB"], 1, to="mri")
    computes(path, networks["G_BA"], 1, to="ct")
    model = load_translator(path)
    images = blurred_noise(1)
    for to, name in (("mri", "G_AB"), ("ct", "G_BA")):
        torch.testing.assert_close(model.translate(images, to), networks[name](images), **CLOSE)
    with pytest.raises(ValueError, match="epoch=3.ckpt .*G_AB, G_BA, D_A"):
        load_reference(path)


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (3, 3), (3, 1)])
def test_a_reference_file_translates_grey_slices(tmp_path, inputs, outputs):
    published = with_grey_pictures(drawn(Resnet(inputs, outputs)))
    torch.save(published.state_dict(), tmp_path / "latest_net_G_A.pth")

    model = load_translator(tmp_path / "latest_net_G_A.pth", to="mri")
    images = blurred_noise(1)
    expected = published(images.expand(-1, inputs, -1, -1))[:, :1]
    torch.testing.assert_close(model.translate(images, "mri"), expected, **CLOSE)
    with pytest.raises(ValueError, match="to='ct'.* mri"):
        model.translate(images, "ct")


def test_a_reference_file_alone_does_not_say_what_it_makes(tmp_path):
    torch.save(drawn(Resnet()).state_dict(), tmp_path / "latest_net_G.pth")
    with pytest.raises(ValueError, match="latest_net_G.pth .*--to"):
        load_translator(tmp_path / "latest_net_G.pth")


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (Patches, "holds a discriminator"),
        (lambda: Resnet(2, 1), "is for images of 2 channels and makes 1"),
    ],
)
def test_what_does_not_translate_is_refused(tmp_path, network, sentence):
    torch.save(drawn(network()).state_dict(), tmp_path / "net.pth")
    with pytest.raises(ValueError, match=f"net.pth {sentence}"):
        load_translator(tmp_path / "net.pth", to="mri")


def test_each_kind_is_told_apart(tmp_path):
    model, _ = train_small(checkpoint=tmp_path / "run.pth", stop_at=1)
    save_weights(model, tmp_path / "pair.pth")
    torch.save(drawn(Resnet()).state_dict(), tmp_path / "G.pth")
    kinds = {"run.pth": SavedModel, "pair.pth": SavedModel, "G.pth": Networks}
    for name, kind in kinds.items():
        assert type(recognise(tmp_path / name)) is kind
    for name in ("run.pth", "pair.pth"):
        assert load_translator(tmp_path / name).architecture == model.architecture
        with pytest.raises(ValueError, match=name):
            load_reference(tmp_path / name)


def test_a_run_is_meant_by_its_name_its_folder_or_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path))
    checkpoint = tmp_path / "runs" / "scans-ci-3" / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    for source in ("scans-ci-3", checkpoint.parent, checkpoint):
        assert locate(source) == checkpoint
    dotted = tmp_path / "runs" / "my.set-ci-3"
    checkpoint.parent.rename(dotted)
    assert locate("my.set-ci-3") == dotted / "checkpoint.pt"
    for source in ("scans-ci-4", "nowhere.pth", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"shipped \(heads, phantom\)"):
            locate(source)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_name_is_found_unless_a_run_has_it(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path))
    assert recognise(locate(name)).contract
    run = tmp_path / "runs" / name / "checkpoint.pt"
    run.parent.mkdir(parents=True)
    run.touch()
    assert locate(name) == locate(Path(name)) == run


def nan_weights(path):
    state = drawn(Resnet()).state_dict()
    state["model.4.weight"][0, 0, 0, 0] = torch.nan
    torch.save(state, path)


def affine_instance_norm(path):
    torch.save(
        Resnet(norm=lambda width: torch.nn.InstanceNorm2d(width, affine=True)).state_dict(), path
    )


def damaged_safetensors(path):
    save_file(drawn(Resnet()).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-100])


def card_of_another_kind(path):
    save_file({"a": torch.zeros(1)}, path, {"card": '{"architecture": 3}'})


def writing(content):
    return lambda path: path.write_bytes(content)


REFUSED = {
    "an error page": (writing(b"<!DOCTYPE html><html>404 not found</html>"), "a web page"),
    "a file of no bytes": (writing(b""), "is empty"),
    "a pointer of Git LFS": (
        writing(b"version https://git-lfs.github.com/spec/v1\noid sha256:1"),
        "Git LFS",
    ),
    "Keras": (writing(b"\x89HDF\r\n\x1a\n" + bytes(50)), "HDF5"),
    "ONNX": (writing(b"\x08\n\x12\x07pytorch" + bytes(9)), "ONNX"),
    "a text": (writing(b"model.1.weight 0.3"), "holds no weights"),
    "a module of before PyTorch 1.6": (
        lambda path: torch.save(Resnet(), path, _use_new_zipfile_serialization=False),
        "UnpicklingError",
    ),
    "a module": (lambda path: torch.save(Resnet(), path), "published_networks.Block, "),
    "CUT's antialiased generator": (
        lambda path: torch.save(Resnet(antialiased=True).state_dict(), path),
        r"\(model.7.filt\); .*--no_antialias_up",
    ),
    "weights that are NaN": (nan_weights, r"not finite \(model.4.weight\)"),
    "instance norm with weights": (affine_instance_norm, r"\(model.2.weight\), as affine instance"),
    "half a safetensors file": (damaged_safetensors, "SafetensorError"),
    "another card": (card_of_another_kind, "a card that cannot be read"),
    "the feature network of KID": (lambda path: shutil.copy(EXTRACTOR, path), "no architecture"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("read", [load_reference, partial(load_translator, to="mri")])
def test_what_cannot_be_read_gets_one_true_sentence(tmp_path, kind, read):
    write, named = REFUSED[kind]
    path = tmp_path / "net.pth"
    write(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"net.pth .*{named}") as error:
        read(path)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    path = tmp_path / "G.pth"
    path.touch()

    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(PermissionError, match="G.pth"):
        recognise(path)


def test_export_and_translate_take_the_flag(tmp_path, capsys):
    import onnxruntime

    published = drawn(Resnet(1, 1, padding="replicate"))
    torch.save(published.state_dict(), tmp_path / "latest_net_G_A.PTH")
    words = ["export", str(tmp_path / "latest_net_G_A.PTH"), str(tmp_path / "G.onnx")]
    assert main([*words, "--padding", "replicate"]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "G.onnx", providers=["CPUExecutionProvider"])
    images = blurred_noise(1)
    [found] = session.run(None, {"image": images.numpy()})
    # float32 in another library; instance norm magnifies rounding
    torch.testing.assert_close(torch.from_numpy(found), published(images), atol=2e-4, rtol=0)

    words[-1] = str(tmp_path / "G.pth")
    assert main([*words, "--padding", "replicate"]) == 1
    assert "padding = 'replicate'" in capsys.readouterr().err


def test_padding_is_for_networks_of_others(tmp_path):
    save_weights(CycleGAN(Architecture(4, 4, 1, 1)), tmp_path / "pair.safetensors")
    with pytest.raises(ValueError, match="padding='replicate'"):
        load_translator(tmp_path / "pair.safetensors", padding="replicate")
