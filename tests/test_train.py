"""`python -m ctmri_utils train`: settings from a file, a run folder that tells everything, and several processes."""
import csv
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from test_training import assert_same_bits

from ctmri_utils.__main__ import main
from ctmri_utils.checkpoints import load_checkpoint
from ctmri_utils.options import PROFILES, read_toml
from ctmri_utils.settings import read_settings
from ctmri_utils.train import RunLog, train

TINY = "profile = 'ci'\nseed = 3\nsteps = 4\nngf = 4\nndf = 4\nn_blocks = 1\nn_layers = 1\nsize = 32\npatients = 5\ntest_patients = 4\n"


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path))
    (tmp_path / "tiny.toml").write_text(TINY)
    return tmp_path / "tiny.toml"


def test_the_run_folder_tells_how_it_was_made(tiny, capsys):
    assert main(["train", str(tiny), "-p", "gan_mode", "hinge", "-p", "learning_rate", "1e-3", "--tensorboard"]) == 0
    run = tiny.parent / "runs" / "phantom-ci-3"
    assert str(run) in capsys.readouterr().out
    told = read_toml(run / "settings.toml")
    assert (told["gan_mode"], told["learning_rate"], told["ngf"], told["seed"], told["steps"]) == ("hinge", 1e-3, 4, 3, 4)
    environment = (run / "environment.txt").read_text()
    assert f"torch: {torch.__version__.split('+')[0]}" in environment and "git revision: " in environment
    rows = list(csv.DictReader((run / "losses.csv").open()))
    losses = load_checkpoint(run / "checkpoint.pt")["losses"]
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    assert [float(row["cycle"]) for row in rows] == [step["cycle"] for step in losses]
    assert len(list((run / "strips").glob("step-*.png"))) == 4 and list(run.glob("**/events.out.tfevents*"))


def test_a_runs_settings_file_makes_the_same_run_again(tiny, tmp_path):
    again = ["train", str(tmp_path / "runs/phantom-ci-3/settings.toml"), "--output", str(tmp_path / "again")]
    assert main(["train", str(tiny)]) == main(again) == 0
    one, other = (load_checkpoint(folder / "checkpoint.pt") for folder in (tmp_path / "runs/phantom-ci-3", tmp_path / "again"))
    assert_same_bits(one["model"], other["model"])


def test_an_unfinished_run_goes_on_and_a_finished_one_says_so(tiny, tmp_path, monkeypatch, capsys):
    from ctmri_utils import train as module

    def interrupted(*args, fit=module.fit, **options):
        return fit(*args, **options, stop_at=2)

    monkeypatch.setattr(module, "fit", interrupted)
    main(["train", str(tiny)])
    run = tmp_path / "runs/phantom-ci-3"
    assert load_checkpoint(run / "checkpoint.pt")["step"] == 2
    monkeypatch.undo()
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path))
    main(["train", str(tiny)])
    main(["train", str(tiny), "--output", str(tmp_path / "straight")])
    assert_same_bits(load_checkpoint(run / "checkpoint.pt")["model"], load_checkpoint(tmp_path / "straight/checkpoint.pt")["model"])
    assert (run / "losses.csv").read_text() == (tmp_path / "straight/losses.csv").read_text()
    main(["train", str(tiny)])
    assert "is already trained to its 4 steps" in capsys.readouterr().out


def test_a_files_settings_stand_on_those_of_its_profile(tiny):
    what, settings = read_settings(tiny, {"seed": 8})
    assert what == {"profile": "ci", "dataset": "phantom", "seed": 8}
    assert settings.ngf == 4 and settings.learning_rate == PROFILES["ci"].learning_rate
    assert read_settings(None, {})[1] == PROFILES["laptop"]


@pytest.mark.parametrize(("text", "message"), [
    ("ngff = 3", "tiny.toml: ngff is no option here: did you mean ngf?"),
    ("profile = 'labtop'", "tiny.toml: PROFILE='labtop' is not known"),
    ("seed = 'one'", "tiny.toml: seed='one' should be like 2026"),
    ("identity = 1\nct_channels = 2", "identity=1 needs as many CT as MR channels"),
    ("generator = 'unet_100'", "unet_100"),
    ("ngf = ", "is no TOML text"),
    ("ct_channels = 2\nidentity = 0", "ct is of shape (5, 1, 32, 32) and should be (N, 2, H, W)"),
    ("dataset = 'nowhere'", "DATASET='nowhere' is neither"),
])
def test_bad_settings_get_one_sentence(tiny, capsys, text, message):
    names = {line.split(" = ")[0] for line in text.splitlines()}
    tiny.write_text("\n".join([line for line in TINY.splitlines() if line.split(" = ")[0] not in names] + [text]))
    assert main(["train", str(tiny)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("train: ") and message in said and said.count("\n") == 1


@pytest.fixture
def ctrl_c():
    """SIGINT as at a terminal: a shell starts what goes to the background with SIGINT ignored, perhaps this very test run."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_gets_one_sentence_and_the_run_goes_on(tiny, tmp_path, monkeypatch, capsys, ctrl_c):
    def interrupted(self, step, losses, call=RunLog.__call__):
        call(self, step, losses)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(RunLog, "__call__", interrupted)
    assert main(["train", str(tiny)]) == 130
    assert capsys.readouterr().err.endswith("\ntrain: interrupted; the same command goes on with it\n")
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "runs/phantom-ci-3/checkpoint.pt")["step"] == 1
    assert main(["train", str(tiny), "--output", str(tmp_path / "runs/phantom-ci-3")]) == 0


def test_a_machine_without_git_trains_too(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["train", str(tiny)]) == 0
    assert "git revision: unknown\n" in (tmp_path / "runs/phantom-ci-3/environment.txt").read_text()


def test_tensorboard_gets_every_loss_once(tiny, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    main(["train", str(tiny), "--tensorboard"])
    run = tmp_path / "runs/phantom-ci-3"
    events = EventAccumulator(str(run)).Reload()
    losses = load_checkpoint(run / "checkpoint.pt")["losses"]
    for name in losses[0]:
        found = events.Scalars(f"losses/{name}")
        assert [scalar.step for scalar in found] == [1, 2, 3, 4]
        assert [scalar.value for scalar in found] == pytest.approx([step[name] for step in losses], rel=1e-6)
    assert {image.step for image in events.Images("strip")} <= {1, 2, 3, 4} and events.Images("strip")[-1].step == 4


def test_a_run_folder_in_the_way_gets_one_sentence(tiny, tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    assert main(["train", str(tiny), "--output", str(tmp_path / "taken")]) == 1
    assert "taken cannot be written to (File exists): choose another folder with --output" in capsys.readouterr().err


def test_other_settings_do_not_overwrite_a_run(tiny, tmp_path, capsys):
    main(["train", str(tiny)])
    assert main(["train", str(tiny), "-p", "gan_mode", "hinge"]) == 1
    assert "cannot be resumed: it belongs to another run, with gan_mode lsgan instead of hinge" in capsys.readouterr().err
    assert read_toml(tmp_path / "runs/phantom-ci-3/settings.toml")["gan_mode"] == "lsgan"


def test_two_processes_train_as_one_with_the_double_batch(tiny, tmp_path):
    """Two CPU processes over gloo, as torchrun starts them (Accelerate's launcher starts several only on GPUs); the first writes."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "CTMRI_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               "-m", "ctmri_utils", "train", str(tiny), "--output", str(tmp_path / "two")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Run in ") == 1
    main(["train", str(tiny), "-p", "batch_size", "2", "--output", str(tmp_path / "one")])
    two, one = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("two", "one"))
    assert two["identity"]["processes"] == 2 and len(two["processes"]) == 2
    assert not any(torch.equal(*pools) for pools in zip(*(process["pools"] for process in two["processes"]), strict=True))
    for ours, theirs in zip(two["losses"], one["losses"], strict=True):
        # float32: the mean over processes is added in another order
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    for name in (name for name in two["model"] if name.endswith("weight")):
        # Adam divides by the gradient's size, so where that is nearly 0 rounding may move a weight by a step of 6e-4; a bias before
        # instance norm has no gradient but rounding, so biases say nothing
        torch.testing.assert_close(two["model"][name], one["model"][name], atol=1e-3, rtol=0)
    # and the two-process run resumes: nothing is left to do
    assert "is already trained" in subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240).stdout


def test_accelerates_notebook_launcher_starts_it_from_a_lesson(tiny, tmp_path):
    from accelerate import notebook_launcher

    notebook_launcher(train, (tiny, tmp_path / "launched"), num_processes=1)
    main(["train", str(tiny), "--output", str(tmp_path / "plain")])
    one, other = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("launched", "plain"))
    assert_same_bits(one["model"], other["model"])


@pytest.mark.parametrize(("name", "value"), [("mask", "1"), ("ct_map", "piecewise")])
def test_what_counts_in_hu_refuses_grey_levels(tiny, tmp_path, capsys, name, value):
    for folder in ("trainA", "trainB", "testA", "testB"):
        (tmp_path / "grey" / folder).mkdir(parents=True)
        for i in range(2):
            pixels = np.random.default_rng(i).integers(0, 255, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "grey" / folder / f"{folder}{i}.png")
    assert main(["train", str(tiny), "-p", "dataset", str(tmp_path / "grey"), "-p", "scans_size", "32", "-p", name, value]) == 1
    assert "counts in HU, and the CT of this set is in grey levels" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("settings", [
    ["sampling", "position"],
    ["sampling", "paired", "supervised", "100", "cycle_ct", "0", "cycle_mri", "0", "identity", "0"],
    ["nce", "1", "ct_map", "piecewise", "mask", "10"],
])
def test_remedies_are_settings_like_the_others(tiny, settings):
    words = [word for pair in zip(settings[::2], settings[1::2], strict=True) for word in ("-p", *pair)]
    assert main(["train", str(tiny), *words]) == 0
    assert load_checkpoint(tiny.parent / "runs" / "phantom-ci-3" / "checkpoint.pt")["step"] == 4
