"""`ctmri train`: a run from settings, a folder that describes it, and several processes."""

import errno
import os
import signal
import subprocess
import sys
from functools import partial
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.fit_tensors import assert_same_bits
from PIL import Image

from ctmri_utils.__main__ import main
from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.cyclegan.resume import load_checkpoint
from ctmri_utils.cyclegan.training import fit
from ctmri_utils.options import read_toml
from ctmri_utils.runs.train import RunLog, check_memory, environment, train
from ctmri_utils.runs.weights import load_translator
from ctmri_utils.scans.slices import FOLDERS
from ctmri_utils.settings import PROFILES, Architecture, Run, Settings, read_settings

TINY = (
    "profile = 'ci'\ndataset = 'phantom'\nseed = 3\nsteps = 4\nngf = 4\nndf = 4\nn_blocks = 1\n"
    "n_layers = 1\nsize = 32\npatients = 5\ntest_patients = 4\n"
)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path))
    (tmp_path / "tiny.toml").write_text(TINY)
    return tmp_path / "tiny.toml"


@pytest.fixture
def run(tmp_path):
    """The folder of the run that `tiny` makes."""
    return tmp_path / "runs" / "phantom-ci-3"


def train_words(path, *words):
    return main(["train", str(path), *map(str, words)])


def checkpoint_in(folder):
    return load_checkpoint(folder / "checkpoint.pt")


def losses_in(folder):
    """losses.csv with every digit."""
    return pd.read_csv(folder / "losses.csv", dtype=str).astype(float).set_index("step")


def write_slices(folder, shape=(32, 32), same_names=True):
    """A folder with two grey pictures of noise for each modality, for training and testing."""
    for name in FOLDERS.values():
        (folder / name).mkdir(parents=True)
        for i in range(2):
            pixels = np.random.default_rng(i).integers(0, 255, shape, dtype=np.uint8)
            stem = "slice-" if same_names else name
            Image.fromarray(pixels).save(folder / name / f"{stem}{i}.png")


def test_the_run_folder_tells_how_it_was_made(tiny, run, capsys):
    words = ["-p", "gan_mode", "hinge", "-p", "learning_rate", "1e-3", "--tensorboard"]
    assert train_words(tiny, *words) == 0
    assert str(run) in capsys.readouterr().out

    expected = {"gan_mode": "hinge", "learning_rate": 1e-3, "ngf": 4, "seed": 3, "steps": 4}
    assert read_toml(run / "settings.toml").items() >= expected.items()
    environment = (run / "environment.txt").read_text()
    assert f"torch: {torch.__version__.split('+')[0]}" in environment
    assert "git revision: " in environment

    table = losses_in(run)
    assert list(table.index) == [1, 2, 3, 4]
    assert table.to_dict("records") == checkpoint_in(run)["losses"]
    assert len(list((run / "strips").glob("step-*.png"))) == 4
    assert list(run.glob("**/events.out.tfevents*"))


def test_a_runs_settings_file_makes_the_same_run_again(tiny, run, tmp_path):
    assert train_words(tiny) == 0
    assert train_words(run / "settings.toml", "--output", tmp_path / "again") == 0
    assert_same_bits(checkpoint_in(run)["model"], checkpoint_in(tmp_path / "again")["model"])


def stop_at(monkeypatch, step):
    monkeypatch.setattr("ctmri_utils.runs.train.fit", partial(fit, stop_at=step))


def test_an_unfinished_run_goes_on_and_a_finished_one_says_so(
    tiny, run, tmp_path, monkeypatch, capsys
):
    stop_at(monkeypatch, 2)
    train_words(tiny)
    assert checkpoint_in(run)["step"] == 2

    stop_at(monkeypatch, None)
    train_words(tiny)
    straight = tmp_path / "straight"
    train_words(tiny, "--output", straight)
    assert_same_bits(checkpoint_in(run)["model"], checkpoint_in(straight)["model"])
    assert (run / "losses.csv").read_text() == (straight / "losses.csv").read_text()

    (run / "losses.csv").unlink()
    train_words(tiny)
    assert "is already trained to its 4 steps" in capsys.readouterr().out
    assert (run / "losses.csv").read_text() == (straight / "losses.csv").read_text()


def test_what_was_done_to_the_data_is_said_and_kept(tiny, tmp_path, capsys):
    write_slices(tmp_path / "mine", (40, 32))
    changes = {"dataset": str(tmp_path / "mine"), "steps": 1, "scans_size": 32}
    run = train(tiny, output=tmp_path / "run", changes=changes)
    kept = (run / "data.txt").read_text()
    assert kept in capsys.readouterr().out
    for text in ("padded to a square and resized to 32x32", "also lie in train", "2 CT slices"):
        assert text in kept


def test_a_files_settings_stand_on_those_of_its_profile(tiny):
    run, settings = read_settings(tiny, {"seed": 8})
    assert run == Run(profile="ci", dataset="phantom", seed=8)
    assert settings.ngf == 4 and settings.learning_rate == PROFILES["ci"].learning_rate
    assert read_settings(None, {})[1] == PROFILES["laptop"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ("ngff = 3", "tiny.toml: ngff"),
        ("profile = 'labtop'", "tiny.toml: profile='labtop'"),
        ("seed = 'one'", "tiny.toml: seed='one'"),
        ("identity = 1\nct_channels = 2", "identity=1"),
        ("generator = 'unet_100'", "unet_100"),
        ("ngf = ", "TOML"),
        ("ct_channels = 2\nidentity = 0", "(5, 1, 32, 32)"),
        ("dataset = 'nowhere'", "'nowhere'"),
    ],
)
def test_bad_settings_get_one_sentence(tiny, capsys, changes, named):
    changed = {line.split(" = ")[0] for line in changes.splitlines()}
    kept = [line for line in TINY.splitlines() if line.split(" = ")[0] not in changed]
    tiny.write_text("\n".join([*kept, changes]))
    assert train_words(tiny) == 1
    message = capsys.readouterr().err
    assert message.startswith("ctmri train: ") and named in message and message.count("\n") == 1


@pytest.fixture
def ctrl_c():
    """SIGINT as at a terminal.

    A shell starts what goes to the background with SIGINT ignored, perhaps this very test run.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_gets_one_sentence_and_the_run_goes_on(tiny, run, monkeypatch, capsys, ctrl_c):
    def interrupted(self, step, losses, call=RunLog.__call__):
        call(self, step, losses)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "__call__", interrupted)
        assert train_words(tiny) == 130
    assert capsys.readouterr().err.endswith(
        "\nctmri train: interrupted; the same command resumes it\n"
    )
    assert checkpoint_in(run)["step"] == 1
    assert train_words(tiny) == 0


def test_a_run_that_broke_off_twice_has_all_its_losses(tiny, run, monkeypatch):
    def broken(self, step, losses, call=RunLog.__call__):
        call(self, step, losses)
        if step in (1, 3):
            raise ValueError("broken")

    purged = []
    monkeypatch.setattr(RunLog, "__call__", broken)
    monkeypatch.setattr(
        "torch.utils.tensorboard.SummaryWriter",
        lambda folder, purge_step: purged.append(purge_step) or MagicMock(),
    )
    for _ in range(2):
        train_words(tiny, "--tensorboard")

    # What an earlier run drew beyond its last save is not shown.
    assert purged == [1, 2]
    table = losses_in(run)
    assert list(table.index) == [1, 2, 3]
    assert table.to_dict("records") == checkpoint_in(run)["losses"]


def test_a_folder_has_the_steps_of_scans_and_a_run_of_its_name(tiny, tmp_path, monkeypatch):
    """Wherever the command is given, and even if its name is that of a phantom."""
    write_slices(tmp_path / "atlas")
    monkeypatch.chdir(tmp_path / "atlas")
    changes = {"dataset": ".", "steps": 0, "scans_steps": 2, "scans_size": 32, "phantom_steps": 3}
    run = train(tiny, changes=changes)
    assert run == tmp_path / "runs" / "atlas-ci-3"
    assert read_toml(run / "settings.toml")["steps"] == len(checkpoint_in(run)["losses"]) == 2


def test_the_seed_draws_patients_weights_and_order(tiny, tmp_path):
    for seed in (3, 4):
        words = ["-p", "seed", seed, "-p", "learning_rate", 0, "--output", tmp_path / str(seed)]
        train_words(tiny, *words)
    one, other = checkpoint_in(tmp_path / "3"), checkpoint_in(tmp_path / "4")
    name = "G_ct2mri.model.1.weight"
    assert not torch.equal(one["model"][name], other["model"][name])
    assert one["identity"]["data"] != other["identity"]["data"]
    assert (one["identity"]["seed"], other["identity"]["seed"]) == (3, 4)


def test_a_machine_without_git_trains_too(tiny, run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert train_words(tiny) == 0
    assert "git revision: unknown\n" in (run / "environment.txt").read_text()


@pytest.mark.parametrize(
    ("status", "said"),
    [("", "git revision: abc123\n"), (" M train.py", "git revision: abc123 with changes\n")],
)
def test_the_environment_names_command_and_revision(tmp_path, monkeypatch, status, said):
    def git(command, **_):
        assert command[:3] == ["git", "-C", str(tmp_path)]
        answers = {"rev-parse": "abc123\n", "status": status}
        return subprocess.CompletedProcess(command, 0, answers[command[3]])

    monkeypatch.setattr("ctmri_utils.machine.CHECKOUT", tmp_path)
    monkeypatch.setattr(subprocess, "run", git)
    monkeypatch.setattr(sys, "argv", ["ctmri_utils", "train", "my.toml"])
    text = environment()
    assert text.startswith("command: ctmri_utils train my.toml\n") and text.endswith(said)


def test_a_missing_tensorboard_is_named_before_the_training(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert train_words(tiny, "--tensorboard") == 1
    assert "tensorboard: pip install 'ctmri-utils[train]'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_tensorboard_gets_every_loss_once(tiny, run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_words(tiny, "--tensorboard")
    events = EventAccumulator(str(run)).Reload()
    losses = checkpoint_in(run)["losses"]
    for name in losses[0]:
        found = events.Scalars(f"losses/{name}")
        assert [scalar.step for scalar in found] == [1, 2, 3, 4]
        expected = [step[name] for step in losses]
        assert [scalar.value for scalar in found] == pytest.approx(expected, rel=1e-6)
    steps = [image.step for image in events.Images("strip")]
    assert set(steps) <= {1, 2, 3, 4} and steps[-1] == 4


def test_a_refused_run_changes_nothing_and_is_not_called_trained(tiny, tmp_path, capsys):
    def everything():
        return {
            path: path.is_file() and (path.read_bytes(), path.stat().st_mtime_ns)
            for path in (tmp_path / "runs").rglob("*")
        }

    assert train_words(tiny, "-p", "crop_size", 64, "--tensorboard") == 1
    assert not (tmp_path / "runs").exists()

    train_words(tiny)
    before = everything()
    capsys.readouterr()
    assert train_words(tiny, "-p", "gan_mode", "hinge", "--tensorboard") == 1
    printed = capsys.readouterr()
    assert "gan_mode lsgan instead of hinge" in printed.err and "trained" not in printed.out
    assert everything() == before


def test_the_environment_is_noted_for_each_call_that_trains(tiny, run, monkeypatch):
    monkeypatch.setattr("ctmri_utils.runs.train.environment", lambda: "once\n")
    # The last has nothing to do.
    for step in (2, None, None):
        stop_at(monkeypatch, step)
        train_words(tiny)
    assert (run / "environment.txt").read_text() == "once\nonce\n"


def test_what_is_no_settings_file_gets_one_sentence(tmp_path, capsys):
    assert train_words(tmp_path) == 1
    assert capsys.readouterr().err.startswith(f"ctmri train: {tmp_path} ")


def test_an_unwritable_folder_is_refused_before_the_work(tiny, run, tmp_path, monkeypatch, capsys):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("ctmri_utils.runs.train.load_scans", lambda *_: pytest.fail("slow"))
    (tmp_path / "taken").write_text("a file")
    assert train_words(tiny, "--output", tmp_path / "taken") == 1
    assert "taken" in capsys.readouterr().err

    monkeypatch.setattr("ctmri_utils.files.tempfile.TemporaryFile", read_only)
    assert train_words(tiny) == 1
    assert f"ctmri train: {run} cannot be written to" in capsys.readouterr().err


def test_an_unwritable_file_is_named_and_the_step_is_kept(tiny, run, capsys):
    (run / "losses.csv").mkdir(parents=True)
    assert train_words(tiny) == 1
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith(f"ctmri train: {run / 'losses.csv'} ")
    )
    assert checkpoint_in(run)["step"] == 1


def test_networks_beyond_the_memory_are_refused(tiny, monkeypatch, capsys):
    assert train_words(tiny, "-p", "ngf", 65536) == 1
    assert "GB of memory" in capsys.readouterr().err

    # 16 bytes for each number that is trained, 4 for each of the averaged generators.
    model = CycleGAN(Architecture(40, 40, 1, 1))
    learning = [*model.generator_parameters, *model.discriminator_parameters]
    trained = sum(weight.numel() for weight in learning)
    averaged = sum(weight.numel() for weight in model.averaged.parameters())
    pages = {"SC_PAGE_SIZE": 1000, "SC_PHYS_PAGES": (16 * trained + 4 * averaged) / 1000}
    monkeypatch.setattr(os, "sysconf", pages.get)
    wide = Settings(ngf=40, ndf=40, n_blocks=1, n_layers=1)
    check_memory(wide, torch.device("cpu"))
    pages["SC_PHYS_PAGES"] -= 1
    with pytest.raises(ValueError):
        check_memory(wide, torch.device("cpu"))


def on_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    "allocate",
    [lambda: torch.empty(2**50), lambda: np.empty(2**50), on_a_gpu],
    ids=["torch", "numpy", "gpu"],
)
def test_memory_that_runs_out_gets_one_sentence(tiny, monkeypatch, capsys, allocate):
    monkeypatch.setattr("ctmri_utils.runs.train.load_scans", lambda *_: allocate())
    assert train_words(tiny) == 1
    assert "memory ran out" in capsys.readouterr().err


def test_other_errors_of_torch_are_not_called_so(tiny, monkeypatch):
    monkeypatch.setattr(
        "ctmri_utils.runs.train.load_scans", lambda *_: torch.zeros(2) @ torch.zeros(3)
    )
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        train_words(tiny)


def test_two_processes_train_as_one_with_the_double_batch(tiny, tmp_path):
    """Two CPU processes over gloo, as torchrun starts them (Accelerate's launcher starts several
    only on GPUs); the first writes.
    """
    variables = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "CTMRI_THREADS": "1",
    }
    launcher = "-m torch.distributed.run --standalone --nproc-per-node 2 -m ctmri_utils train"
    command = [sys.executable, *launcher.split(), str(tiny), "--output", str(tmp_path / "two")]

    def launch():
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert launch().count("Run in ") == 1
    train_words(tiny, "-p", "batch_size", 2, "--output", tmp_path / "one")
    two, one = checkpoint_in(tmp_path / "two"), checkpoint_in(tmp_path / "one")
    assert two["identity"]["processes"] == 2
    first, second = (process["pools"] for process in two["processes"])
    assert not any(torch.equal(*pools) for pools in zip(first, second, strict=True))

    for ours, theirs in zip(two["losses"], one["losses"], strict=True):
        # float32: the mean over processes is added in another order
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    for name in (name for name in two["model"] if name.endswith("weight")):
        # Adam divides by the gradient's size, so where that is nearly 0 rounding may move a weight
        # by a step of 6e-4; a bias before instance norm has no gradient but rounding, so biases say
        # nothing
        torch.testing.assert_close(two["model"][name], one["model"][name], atol=1e-3, rtol=0)

    # The two-process run resumes: nothing is left to do.
    assert "is already trained" in launch()


def test_accelerates_notebook_launcher_starts_it_from_a_lesson(tiny, tmp_path):
    from accelerate import notebook_launcher

    notebook_launcher(train, (tiny, tmp_path / "launched"), num_processes=1)
    train_words(tiny, "--output", tmp_path / "plain")
    launched, plain = checkpoint_in(tmp_path / "launched"), checkpoint_in(tmp_path / "plain")
    assert_same_bits(launched["model"], plain["model"])


@pytest.fixture
def grey_words(tmp_path):
    """Flags for a folder of 8-bit slices, whose CT has no HU."""
    write_slices(tmp_path / "grey", same_names=False)
    return ["--dataset", tmp_path / "grey", "--scans-size", 32]


def test_the_mask_loss_refuses_grey_levels(tiny, tmp_path, capsys, grey_words):
    assert train_words(tiny, *grey_words, "--mask", 10) == 1
    assert "mask=10" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_networks_see_grey_levels_without_a_ct_map(tiny, tmp_path, capsys, grey_words):
    assert train_words(tiny, *grey_words, "--ct-map", "piecewise") == 0
    assert "the networks see it without a CT map" in capsys.readouterr().out
    run = tmp_path / "runs" / "grey-ci-3"
    assert load_translator(run).architecture.ct_map == "linear"
    assert read_toml(run / "settings.toml")["ct_map"] == "linear"


@pytest.mark.parametrize(
    "words",
    [
        "sampling=position",
        "sampling=paired supervised=100 cycle_ct=0 cycle_mri=0 identity=0",
        "nce=1 ct_map=piecewise mask=10",
    ],
)
def test_remedies_are_settings_like_the_others(tiny, run, words):
    parameters = []
    for word in words.split():
        parameters += ["-p", *word.split("=")]
    assert train_words(tiny, *parameters) == 0
    assert checkpoint_in(run)["step"] == 4
