"""Checkpoints and weights as files: whole or not at all, and nothing in them is run."""

import errno
import io
import os
from pathlib import Path

import pytest
import torch
from helpers.fit_tensors import SMALL, assert_same_bits, train_small
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ctmri_utils.cyclegan.model import Translator
from ctmri_utils.cyclegan.resume import PARTS, load_checkpoint, save_checkpoint
from ctmri_utils.runs.contract import Contract
from ctmri_utils.runs.locations import checkpoint_file, weights_file
from ctmri_utils.runs.weights import (
    load_translator,
    save_weights,
    trained_translator,
)

CONTRACT = Contract(size=64, pixel_mm=3.4, data="phantom", steps=8)


def test_load_translator_rebuilds_the_trained_model(tmp_path):
    model, _ = train_small(checkpoint=tmp_path / "run.pt")
    again = load_translator(tmp_path / "run.pt")
    assert not again.training
    images = torch.rand(2, 1, 32, 32) * 2 - 1
    assert torch.equal(again.translate(images, "mri"), model.translate(images, "mri"))


def test_the_same_weights_are_the_same_bytes(tmp_path):
    model = Translator(SMALL)
    model.contract = CONTRACT
    for name in "abcdefgh":
        save_weights(model, tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in "abcdefgh"}) == 1


def files_of_runs(folder):
    """What lies in a folder, but for the locks."""
    return sorted(file.name for file in folder.iterdir() if file.suffix != ".lock")


def test_an_interrupted_save_leaves_nothing_behind(tmp_path, monkeypatch):
    train_small(checkpoint=tmp_path / "run.pt", stop_at=2)
    kept = (tmp_path / "run.pt").read_bytes()

    def interrupted(state, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint({}, tmp_path / "run.pt")
    assert files_of_runs(tmp_path) == ["run.pt"]
    assert (tmp_path / "run.pt").read_bytes() == kept


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    train_small(checkpoint=tmp_path / "run.pt", stop_at=2)

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(torch, "load", forbidden)
    with pytest.raises(PermissionError, match="run.pt"):
        load_checkpoint(tmp_path / "run.pt")


@pytest.mark.parametrize(
    "change",
    [
        {"processes": []},
        {"optimizers": [{}, {}]},
        {"schedulers": [3, 3]},
        {"processes": [{"pools": 3}]},
    ],
)
def test_a_checkpoint_with_odd_insides_gets_one_sentence(tmp_path, change):
    train_small(checkpoint=tmp_path / "run.pt", stop_at=2)
    torch.save(load_checkpoint(tmp_path / "run.pt") | change, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="run.pt"):
        train_small(checkpoint=tmp_path / "run.pt")


def test_a_damaged_or_missing_checkpoint_gets_one_sentence(tmp_path):
    train_small(checkpoint=tmp_path / "run.pt")
    whole = (tmp_path / "run.pt").read_bytes()
    (tmp_path / "run.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="run.pt"):
        load_checkpoint(tmp_path / "run.pt")
    with pytest.raises(FileNotFoundError, match="none.pt"):
        load_checkpoint(tmp_path / "none.pt")


class Full(io.FileIO):
    def write(self, piece):
        if self.tell() + len(piece) > 20_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(piece)


def test_out_of_disk_the_last_good_checkpoint_stays(tmp_path, monkeypatch):
    """A disk that is full after 20 kB: the system's error, in the middle of the writing."""
    path, opened = tmp_path / "run.pt", Path.open
    train_small(checkpoint=path, stop_at=4)
    assert path.stat().st_size > 20_000

    def open_full(self, mode="r", **options):
        return (Full if mode == "wb" and self.parent == tmp_path else opened)(self, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        with pytest.raises(OSError, match="run.pt .*No space left.* an earlier step is kept"):
            train_small(checkpoint=path)
        with pytest.raises(OSError, match="first.pt .*No space left.* nothing was saved"):
            save_checkpoint(load_checkpoint(path), tmp_path / "first.pt")
    assert load_checkpoint(path)["step"] == 4
    assert files_of_runs(tmp_path) == ["run.pt"]
    assert_same_bits(train_small(checkpoint=path)[0].state_dict(), train_small()[0].state_dict())


class Hostile:
    """Unpickling this would call a function."""

    def __reduce__(self):
        return print, ("a checkpoint ran this",)


def test_a_hostile_checkpoint_is_refused_unread(tmp_path, capsys):
    torch.save({"identity": Hostile()}, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="run.pt is not a readable checkpoint"):
        load_checkpoint(tmp_path / "run.pt")
    assert "a checkpoint ran this" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "other",
    [
        {"fc.weight": torch.zeros(1)},
        torch.zeros(3),
        {"identity": {}, "step": 3},
        {part: [] for part in PARTS},
    ],
)
def test_a_file_that_fit_did_not_write_gets_one_sentence(tmp_path, other):
    torch.save(other, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="run.pt was not written by `fit`"):
        train_small(checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="run.pt (was not written by `fit`|holds no network)"):
        load_translator(tmp_path / "run.pt")


@pytest.mark.parametrize("change", [{"norm": "group"}, {"n_blocks": 3}])
def test_a_checkpoint_of_another_version_gets_one_sentence(tmp_path, change):
    train_small(checkpoint=tmp_path / "run.pt")
    state = load_checkpoint(tmp_path / "run.pt")
    state["identity"] |= change
    torch.save(state, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="run.pt .*(group|conv_block)"):
        load_translator(tmp_path / "run.pt")


def test_weights_keep_both_generators_in_half_precision(tmp_path):
    model, _ = train_small()
    path = tmp_path / "weights.safetensors"
    save_weights(model, path)
    numbers = sum(weight.numel() for weight in model.averaged.parameters())
    assert path.stat().st_size < 2.5 * numbers + 4000

    again = load_translator(path)
    assert again.architecture == SMALL and not again.training
    images = torch.rand(2, 1, 32, 32) * 2 - 1
    for to in ("mri", "ct"):
        fake = again.translate(images, to)
        # weights rounded to 11 bits; tanh of a few layers
        torch.testing.assert_close(fake, model.translate(images, to), atol=2e-3, rtol=0)
        assert torch.equal(fake, again.translate(images, to, averaged=False))


def test_damaged_or_foreign_weights_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(FileNotFoundError, match="weights.safetensors"):
        load_translator(path)
    save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="holds no network"):
        load_translator(path)

    save_weights(Translator(SMALL), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is damaged"):
        load_translator(path)


def test_a_card_takes_no_memory_for_what_is_not_there(tmp_path):
    path = tmp_path / "weights.safetensors"
    card = '{"architecture": {"ngf": 65536}, "about": {}}'
    save_file({"mri.model.1.weight": torch.zeros(3)}, path, {"card": card})
    with pytest.raises(ValueError, match="lacks"):
        load_translator(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state.pop("mri.model.4.weight"), "lacks .*model.4.weight"),
        (
            lambda state: state.update({"ct.model.4.bias": torch.zeros(3)}),
            r"model.4.bias in the shape \(3,\) instead of \(8,\)",
        ),
        (lambda state: state["ct.model.4.bias"].fill_(torch.nan), "not finite .*model.4.bias"),
        (lambda state: state.update({"pet.model.4.bias": torch.zeros(3)}), "also has .*pet.model"),
    ],
)
def test_weights_that_do_not_fit_their_card_are_refused(tmp_path, change, named):
    path = tmp_path / "weights.safetensors"
    save_weights(Translator(SMALL), path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    change(state)
    save_file(state, path, metadata)
    with pytest.raises(ValueError, match=f"weights.safetensors.*{named}"):
        load_translator(path)


@pytest.mark.parametrize("dataset", ["phantom", "atlas", "scans", "heads"])
def test_lessons_use_the_shipped_weights_until_a_run_exists(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path))
    model, source = trained_translator(dataset, "laptop", 1)
    assert "that come with the course" in source and weights_file(dataset).is_file()
    assert model.translate(torch.zeros(1, 1, 64, 64), "ct").shape == (1, 1, 64, 64)
    trained = train_small(checkpoint=checkpoint_file(dataset, "laptop", 1))[0]
    model, source = trained_translator(dataset, "laptop", 1)
    assert "your own training run, 8 steps" in source
    assert_same_bits(model.state_dict(), trained.state_dict())


def test_a_folder_of_ones_own_has_no_weights_before_training(tmp_path, monkeypatch):
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="mine"):
        trained_translator("mine", "laptop", 1)
