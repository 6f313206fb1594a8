"""Checkpoints and weights as files: whole or not at all, and nothing in them is run."""
import resource
import subprocess
import sys

import pytest
import torch
from test_training import SMALL, assert_same_bits, train

from ctmri_utils.checkpoints import (
    load_checkpoint,
    load_translator,
    load_weights,
    save_weights,
    trained_translator,
    weights_file,
)
from ctmri_utils.settings import checkpoint_file
from ctmri_utils.translators import Translator


def test_load_translator_rebuilds_the_trained_model(tmp_path):
    model, _ = train(checkpoint=tmp_path / "run.pt")
    images = torch.rand(2, 1, 32, 32) * 2 - 1
    assert torch.equal(load_translator(tmp_path / "run.pt").translate(images, "mri"), model.translate(images, "mri"))


def test_a_damaged_or_missing_checkpoint_gets_one_sentence(tmp_path):
    train(checkpoint=tmp_path / "run.pt")
    whole = (tmp_path / "run.pt").read_bytes()
    (tmp_path / "run.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="run.pt is not a readable checkpoint"):
        load_checkpoint(tmp_path / "run.pt")
    with pytest.raises(FileNotFoundError, match="none.pt does not exist or is no file: train first"):
        load_checkpoint(tmp_path / "none.pt")


FULL_DISK = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from test_training import train
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    train(checkpoint=sys.argv[1])
except OSError as error:
    print(error)
"""


def test_out_of_disk_the_last_good_checkpoint_stays(tmp_path):
    """A process that may not write more than 20 kB to a file: the system's own error, in the middle of the writing."""
    from pathlib import Path

    path = tmp_path / "run.pt"
    train(checkpoint=path, stop_at=4)
    assert path.stat().st_size > 20_000 and hasattr(resource, "RLIMIT_FSIZE")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path), str(Path(__file__).parent)], capture_output=True, text=True)
    assert "run.pt cannot be written" in done.stdout and "the checkpoint of an earlier step is kept" in done.stdout, done.stderr
    assert load_checkpoint(path)["step"] == 4 and [file.name for file in tmp_path.iterdir()] == ["run.pt"]
    assert_same_bits(train(checkpoint=path)[0].state_dict(), train()[0].state_dict())


class Hostile:
    """Unpickling this would call a function."""

    def __reduce__(self):
        return print, ("a checkpoint ran this",)


def test_a_hostile_checkpoint_is_refused_unread(tmp_path, capsys):
    torch.save({"identity": Hostile()}, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="run.pt is not a readable checkpoint"):
        load_checkpoint(tmp_path / "run.pt")
    assert "a checkpoint ran this" not in capsys.readouterr().out


@pytest.mark.parametrize("other", [{"model.1.weight": torch.zeros(1)}, torch.zeros(3), {"identity": {}, "step": 3}])
def test_a_file_that_fit_did_not_write_gets_one_sentence(tmp_path, other):
    torch.save(other, tmp_path / "run.pt")
    for read in (load_translator, lambda path: train(checkpoint=path)):
        with pytest.raises(ValueError, match="run.pt was not written by `fit`"):
            read(tmp_path / "run.pt")


@pytest.mark.parametrize("change", [{"norm": "group"}, {"n_blocks": 3}])
def test_a_checkpoint_of_another_version_gets_one_sentence(tmp_path, change):
    train(checkpoint=tmp_path / "run.pt")
    state = load_checkpoint(tmp_path / "run.pt")
    state["identity"] |= change
    torch.save(state, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="run.pt does not fit this version's networks.*(group|conv_block)"):
        load_translator(tmp_path / "run.pt")


def test_weights_keep_both_generators_in_half_precision(tmp_path):
    model, _ = train()
    save_weights(model, tmp_path / "weights.safetensors", {"steps": 8, "note": "für"})
    again, about = load_weights(tmp_path / "weights.safetensors")
    assert about == {"steps": 8, "note": "für"} and again.architecture == SMALL
    images = torch.rand(2, 1, 32, 32) * 2 - 1
    for to in ("mri", "ct"):
        # weights rounded to 11 bits; tanh of a few layers
        torch.testing.assert_close(again.translate(images, to), model.translate(images, to), atol=2e-3, rtol=0)
        assert torch.equal(again.translate(images, to), again.translate(images, to, averaged=False))
        assert torch.equal(again.translate(images, to), load_translator(tmp_path / "weights.safetensors").translate(images, to))


def test_damaged_or_foreign_weights_get_one_sentence(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "weights.safetensors"
    with pytest.raises(FileNotFoundError, match="weights.safetensors does not exist"):
        load_weights(path)
    save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="weights.safetensors holds no weights of `save_weights`"):
        load_weights(path)
    save_weights(Translator(SMALL), path, {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="weights.safetensors holds no weights of `save_weights`"):
        load_translator(path)


@pytest.mark.parametrize("dataset", ["phantom", "scans"])
def test_lessons_start_from_the_shipped_weights_until_there_is_a_training(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path))
    model, whence = trained_translator(dataset, "laptop", 1)
    assert "the weights that come with the course" in whence and weights_file(dataset).is_file()
    assert model.translate(torch.zeros(1, 1, 64, 64), "ct").shape == (1, 1, 64, 64)
    trained = train(checkpoint=checkpoint_file(dataset, "laptop", 1))[0]
    model, whence = trained_translator(dataset, "laptop", 1)
    assert "your own training, 8 steps" in whence
    assert_same_bits(model.state_dict(), trained.state_dict())


def test_a_folder_of_ones_own_has_no_weights_before_training(tmp_path, monkeypatch):
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="there is no training on mine yet .*: run lesson 03 with this DATASET first"):
        trained_translator("mine", "laptop", 1)
