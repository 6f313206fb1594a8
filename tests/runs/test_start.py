"""`start`: a new training from old weights, with a fresh schedule, known by the weights' digest."""

import pytest
import torch
from helpers.fit_tensors import assert_same_bits
from helpers.published_networks import (
    Patches,
    Resnet,
    Unet,
    blurred_noise,
    drawn,
    with_grey_pictures,
)

from ctmri_utils.__main__ import main
from ctmri_utils.cyclegan import CycleGAN, load_checkpoint
from ctmri_utils.cyclegan.batches import Slices
from ctmri_utils.cyclegan.training import Trainer, fit
from ctmri_utils.options import read_toml
from ctmri_utils.runs import load_translator, save_weights, start_from
from ctmri_utils.settings import Architecture, Objective, Training

SMALL = Architecture(ngf=4, ndf=4, n_blocks=2)
CLOSE = {"atol": 1e-5, "rtol": 0}
TINY = (
    "profile = 'ci'\nseed = 3\nsteps = 2\nngf = 4\nndf = 4\nn_blocks = 1\nn_layers = 1\nsize = 32\n"
    "patients = 5\ntest_patients = 4\n"
)


def new_model(seed=5, architecture=SMALL, objective=Objective()):
    torch.manual_seed(seed)
    return CycleGAN(architecture, objective)


def trained(tmp_path, steps=3, objective=Objective()):
    """A model after some steps, and its checkpoint."""
    model = new_model(1, objective=objective)
    slices = Slices(blurred_noise(1, 2, batch=3), blurred_noise(1, 3, batch=3))
    path = tmp_path / "old" / "checkpoint.pt"
    fit(model, slices, Training(steps=steps), seed=1, checkpoint=path)
    return model, path


def write_reference(folder, **networks):
    """Files as the reference names them."""
    folder.mkdir()
    for part, network in networks.items():
        torch.save(network.state_dict(), folder / f"latest_net_{part}.pth")


def test_a_checkpoint_gives_all_its_networks_and_its_averages(tmp_path):
    old, path = trained(tmp_path)
    new = new_model()
    start = start_from(new, path)
    assert_same_bits(new.state_dict(), old.state_dict())
    assert start.summary == f"Starts from {path}: G_ct2mri, G_mri2ct, D_ct, D_mri"


def test_discriminators_that_never_learned_are_not_taken(tmp_path):
    path = trained(tmp_path, objective=Objective(adversarial=0, cycle_ct=1))[1]
    new = new_model()
    drawn_anew = {key: tensor.clone() for key, tensor in new.D_ct.state_dict().items()}
    assert "; D_ct, D_mri drawn anew" in start_from(new, path).summary
    assert_same_bits(new.D_ct.state_dict(), drawn_anew)


def test_weights_give_the_generators_and_their_averages(tmp_path):
    old, _ = trained(tmp_path)
    save_weights(old, tmp_path / "pair.safetensors")
    new = new_model()
    drawn_anew = {key: tensor.clone() for key, tensor in new.D_mri.state_dict().items()}
    start = start_from(new, tmp_path / "pair.safetensors")
    assert start.summary.endswith("G_ct2mri, G_mri2ct; D_ct, D_mri drawn anew")
    kept = load_translator(tmp_path / "pair.safetensors").averaged.state_dict()
    assert_same_bits(new.averaged.state_dict(), kept)
    assert_same_bits(new.G_ct2mri.state_dict(), new.averaged["mri"].state_dict())
    assert_same_bits(new.D_mri.state_dict(), drawn_anew)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_reference_file_brings_its_neighbours(tmp_path, channels):
    """The reference's A is CT here and B is MR; its D_A judges B."""
    networks = {
        "G_A": with_grey_pictures(drawn(Resnet(channels, channels), 1)),
        "G_B": with_grey_pictures(drawn(Resnet(channels, channels), 2)),
        "D_A": drawn(Patches(channels), 3),
        "D_B": drawn(Patches(channels), 4),
    }
    write_reference(tmp_path / "theirs", **networks)
    new = new_model().eval()
    start_from(new, tmp_path / "theirs" / "latest_net_G_A.pth")

    image = blurred_noise(1)
    inputs = image.expand(-1, channels, -1, -1)
    ours = {"G_A": new.G_ct2mri, "G_B": new.G_mri2ct, "D_A": new.D_mri, "D_B": new.D_ct}
    for part, network in ours.items():
        expected = networks[part](inputs)[:, :1]
        torch.testing.assert_close(network(image), expected, **CLOSE)
    torch.testing.assert_close(new.averaged["mri"](image), new.G_ct2mri(image), **CLOSE)


def test_one_generator_alone_is_enough(tmp_path):
    write_reference(tmp_path / "theirs", G_B=drawn(Resnet(1, 1), 2))
    new = new_model()
    start = start_from(new, tmp_path / "theirs" / "latest_net_G_B.pth")
    assert start.summary.endswith("latest_net_G_B.pth: G_mri2ct; G_ct2mri, D_ct, D_mri drawn anew")


def test_where_generators_are_called_by_two_letters_d_a_judges_a(tmp_path):
    networks = {"G_AB": drawn(Resnet(1, 1), 1), "D_A": drawn(Patches(1), 3)}
    state = {}
    for name, network in networks.items():
        state |= {f"{name}.{key}": tensor for key, tensor in network.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "model.ckpt")
    new = new_model()
    start_from(new, tmp_path / "model.ckpt")
    assert_same_bits(new.D_ct.state_dict(), networks["D_A"].state_dict())


@pytest.mark.parametrize(
    ("networks", "named"),
    [
        ({"G_A": Resnet(1, 1, blocks=3)}, "set n_blocks = 3 to"),
        ({"G_A": Resnet(1, 1, ngf=2)}, "set ngf = 2 to"),
        ({"G_A": Unet()}, "set generator = 'unet_32' to"),
        ({"G_A": Resnet(1, 1, dropout=True)}, "set dropout = True to"),
        ({"G_A": Resnet(1, 1), "D_A": Patches(1, ndf=2)}, "set ndf = 2 to"),
        ({"G_A": Resnet(1, 1, padding="zero")}, "without padding layers"),
        ({"G_A": Resnet(2, 2)}, "images of 2 channels"),
        ({"G_A": Resnet(1, 2)}, "channels"),
        ({"D_A": Patches(1)}, "does not say what its generator makes"),
        ({"G": Resnet(1, 1)}, "does not say what its generator makes"),
    ],
)
def test_other_networks_are_refused_and_nothing_changes(tmp_path, networks, named):
    write_reference(tmp_path / "theirs", **networks)
    new = new_model()
    before = {key: tensor.clone() for key, tensor in new.state_dict().items()}
    first = next(iter(networks))
    with pytest.raises(ValueError, match=f"latest_net_{first}.pth.*{named}"):
        start_from(new, tmp_path / "theirs" / f"latest_net_{first}.pth")
    assert_same_bits(new.state_dict(), before)


def test_another_map_of_ct_is_refused(tmp_path):
    path = trained(tmp_path)[1]
    other = new_model(architecture=Architecture(ngf=4, ndf=4, n_blocks=2, ct_map="piecewise"))
    with pytest.raises(ValueError, match="ct_map = 'linear'"):
        start_from(other, path)


def test_the_digest_is_of_the_weights_and_not_of_the_file(tmp_path):
    networks = {"G_A": drawn(Resnet(1, 1), 1)}
    write_reference(tmp_path / "one", **networks)
    write_reference(tmp_path / "other", G_A=drawn(Resnet(1, 1), 2))
    torch.save(
        {f"module.{key}": tensor for key, tensor in networks["G_A"].state_dict().items()},
        tmp_path / "wrapped_G_A.pth",
    )
    digests = [
        start_from(new_model(), tmp_path / name).digest
        for name in ("one/latest_net_G_A.pth", "wrapped_G_A.pth", "other/latest_net_G_A.pth")
    ]
    assert digests[0] == digests[1] != digests[2] and len(digests[0]) == 64


def test_a_start_makes_the_run_another_one(tmp_path):
    trained(tmp_path)
    slices = Slices(blurred_noise(1, 2, batch=3), blurred_noise(1, 3, batch=3))
    path = tmp_path / "new.pt"
    fit(new_model(), slices, Training(steps=4), seed=1, checkpoint=path, stop_at=1, start="a" * 64)
    assert load_checkpoint(path)["identity"]["start"] == "a" * 64
    for start in ("b" * 64, None):
        with pytest.raises(ValueError, match=f"start a+ instead of {start}"):
            fit(new_model(), slices, Training(steps=4), seed=1, checkpoint=path, start=start)


def test_the_schedule_is_fresh(tmp_path):
    _, path = trained(tmp_path)
    new = new_model()
    start_from(new, path)
    trainer = Trainer(new, Training(steps=10))
    assert trainer.step == 0 and trainer.optimizers[0].param_groups[0]["lr"] == 2e-4
    assert not trainer.optimizers[0].state


# From the command line.


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path))
    (tmp_path / "tiny.toml").write_text(f"dataset = 'phantom'\n{TINY}")
    assert main(["train", str(tmp_path / "tiny.toml")]) == 0
    return tmp_path / "tiny.toml"


def test_a_longer_training_starts_from_the_old_one(tiny, tmp_path, capsys):
    words = ["train", str(tiny), "-p", "steps", "4"]
    old = tmp_path / "runs" / "phantom-ci-3" / "checkpoint.pt"
    before = old.read_bytes()
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "steps 2 instead of 4" in error and "set start to" in error

    words += ["--output", str(tmp_path / "longer"), "--start", "phantom-ci-3"]
    assert main(words) == 0
    assert f"Starts from {old}: G_ct2mri, G_mri2ct, D_ct, D_mri" in capsys.readouterr().out
    longer = load_checkpoint(tmp_path / "longer" / "checkpoint.pt")
    assert longer["step"] == 4 and len(longer["identity"]["start"]) == 64
    assert old.read_bytes() == before

    # The same command goes on with it; its own settings say the start by its full path.
    assert main(words) == 0 and "already trained to its 4 steps" in capsys.readouterr().out
    assert read_toml(tmp_path / "longer" / "settings.toml")["start"] == str(old)
    assert main([*words[:-2]]) == 1
    assert "another run" in capsys.readouterr().err


def test_a_run_does_not_start_from_itself(tiny, tmp_path, capsys):
    assert main(["train", str(tiny), "-p", "start", "phantom-ci-3"]) == 1
    assert "is the run in" in capsys.readouterr().err


def test_a_start_that_does_not_fit_leaves_no_folder(tiny, tmp_path, capsys):
    words = ["train", str(tiny), "-p", "start", "phantom-ci-3", "-p", "ngf", "2"]
    assert main([*words, "--output", str(tmp_path / "new")]) == 1
    assert "set ngf = 4 to start from it" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
