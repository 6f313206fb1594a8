"""`python -m ctmri_utils train`.

Settings from a file, a run folder that tells everything, and several processes.
"""

import csv
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image
from test_training import assert_same_bits

from ctmri_utils.__main__ import main
from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.cyclegan.resume import load_checkpoint
from ctmri_utils.cyclegan.training import fit
from ctmri_utils.runs.train import RunLog, check_memory, environment, train
from ctmri_utils.runs.weights import load_translator
from ctmri_utils.scans.slices import FOLDERS
from ctmri_utils.settings import PROFILES, Architecture, Settings, read_settings, read_toml

TINY = (
    "profile = 'ci'\ndataset = 'phantom'\nseed = 3\nsteps = 4\nngf = 4\nndf = 4\nn_blocks = 1\n"
    "n_layers = 1\nsize = 32\npatients = 5\ntest_patients = 4\n"
)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path))
    (tmp_path / "tiny.toml").write_text(TINY)
    return tmp_path / "tiny.toml"


def test_the_run_folder_tells_how_it_was_made(tiny, capsys):
    assert (
        main(
            [
                "train",
                str(tiny),
                "-p",
                "gan_mode",
                "hinge",
                "-p",
                "learning_rate",
                "1e-3",
                "--tensorboard",
            ]
        )
        == 0
    )
    run = tiny.parent / "runs" / "phantom-ci-3"
    assert str(run) in capsys.readouterr().out
    told = read_toml(run / "settings.toml")
    assert (told["gan_mode"], told["learning_rate"], told["ngf"], told["seed"], told["steps"]) == (
        "hinge",
        1e-3,
        4,
        3,
        4,
    )
    environment = (run / "environment.txt").read_text()
    assert (
        f"torch: {torch.__version__.split('+')[0]}" in environment
        and "git revision: " in environment
    )
    rows = list(csv.DictReader((run / "losses.csv").open()))
    losses = load_checkpoint(run / "checkpoint.pt")["losses"]
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    assert [float(row["cycle"]) for row in rows] == [step["cycle"] for step in losses]
    assert len(list((run / "strips").glob("step-*.png"))) == 4 and list(
        run.glob("**/events.out.tfevents*")
    )


def test_a_runs_settings_file_makes_the_same_run_again(tiny, tmp_path):
    again = [
        "train",
        str(tmp_path / "runs/phantom-ci-3/settings.toml"),
        "--output",
        str(tmp_path / "again"),
    ]
    assert main(["train", str(tiny)]) == main(again) == 0
    one, other = (
        load_checkpoint(folder / "checkpoint.pt")
        for folder in (tmp_path / "runs/phantom-ci-3", tmp_path / "again")
    )
    assert_same_bits(one["model"], other["model"])


def test_an_unfinished_run_goes_on_and_a_finished_one_says_so(tiny, tmp_path, monkeypatch, capsys):
    from ctmri_utils.runs import train as module

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
    assert_same_bits(
        load_checkpoint(run / "checkpoint.pt")["model"],
        load_checkpoint(tmp_path / "straight/checkpoint.pt")["model"],
    )
    assert (run / "losses.csv").read_text() == (tmp_path / "straight/losses.csv").read_text()
    (run / "losses.csv").unlink()
    main(["train", str(tiny)])
    assert "is already trained to its 4 steps" in capsys.readouterr().out
    assert (run / "losses.csv").read_text() == (tmp_path / "straight/losses.csv").read_text()


def test_what_was_done_to_the_data_is_said_and_kept(tiny, tmp_path, capsys):
    folder = tmp_path / "mine"
    for name in FOLDERS.values():
        (folder / name).mkdir(parents=True)
        for i in range(2):
            pixels = np.random.default_rng(i).integers(0, 256, (40, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"slice-{i}.png")
    changes = {"dataset": str(folder), "steps": 1, "scans_size": 32}
    run = train(tiny, output=tmp_path / "run", changes=changes)
    said = capsys.readouterr().out
    kept = (run / "data.txt").read_text()
    for text in (said, kept):
        assert "padded to a square and resized to 32x32" in text
        assert "also lie in train" in text and "2 CT slices" in text


def test_a_files_settings_stand_on_those_of_its_profile(tiny):
    what, settings = read_settings(tiny, {"seed": 8})
    assert what == {"profile": "ci", "dataset": "phantom", "seed": 8, "start": ""}
    assert settings.ngf == 4 and settings.learning_rate == PROFILES["ci"].learning_rate
    assert read_settings(None, {})[1] == PROFILES["laptop"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ngff = 3", "tiny.toml: ngff is not an option: did you mean ngf?"),
        ("profile = 'labtop'", "tiny.toml: unknown profile 'labtop'"),
        ("seed = 'one'", "tiny.toml: seed='one'"),
        ("identity = 1\nct_channels = 2", "identity=1 needs as many CT as MR channels"),
        ("generator = 'unet_100'", "unet_100"),
        ("ngf = ", "is not valid TOML"),
        (
            "ct_channels = 2\nidentity = 0",
            "ct is of shape (5, 1, 32, 32) and should be (N, 2, H, W)",
        ),
        ("dataset = 'nowhere'", "unknown data set 'nowhere'"),
    ],
)
def test_bad_settings_get_one_sentence(tiny, capsys, text, message):
    names = {line.split(" = ")[0] for line in text.splitlines()}
    tiny.write_text(
        "\n".join(
            [line for line in TINY.splitlines() if line.split(" = ")[0] not in names] + [text]
        )
    )
    assert main(["train", str(tiny)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("train: ") and message in said and said.count("\n") == 1


@pytest.fixture
def ctrl_c():
    """SIGINT as at a terminal.

    A shell starts what goes to the background with SIGINT ignored, perhaps this very test run.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_gets_one_sentence_and_the_run_goes_on(tiny, tmp_path, monkeypatch, capsys, ctrl_c):
    def interrupted(self, step, losses, call=RunLog.__call__):
        call(self, step, losses)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(RunLog, "__call__", interrupted)
    assert main(["train", str(tiny)]) == 130
    assert capsys.readouterr().err.endswith("\ntrain: interrupted; the same command resumes it\n")
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "runs/phantom-ci-3/checkpoint.pt")["step"] == 1
    assert main(["train", str(tiny), "--output", str(tmp_path / "runs/phantom-ci-3")]) == 0


def test_a_run_that_went_on_and_broke_off_again_has_all_its_losses(tiny, tmp_path, monkeypatch):
    def broken(self, step, losses, call=RunLog.__call__):
        call(self, step, losses)
        if step in (1, 3):
            raise ValueError

    purged = []
    monkeypatch.setattr(RunLog, "__call__", broken)
    monkeypatch.setattr(
        "torch.utils.tensorboard.SummaryWriter",
        lambda folder, purge_step: purged.append(purge_step) or MagicMock(),
    )
    for _ in range(2):
        main(["train", str(tiny), "--tensorboard"])
    # what an earlier run drew beyond its last save is not shown
    assert purged == [1, 2]
    run = tmp_path / "runs/phantom-ci-3"
    rows = list(csv.DictReader((run / "losses.csv").open()))
    assert [(int(row["step"]), float(row["cycle"])) for row in rows] == [
        (step, losses["cycle"])
        for step, losses in enumerate(load_checkpoint(run / "checkpoint.pt")["losses"], 1)
    ] and len(rows) == 3


def test_steps_that_follow_from_the_data_set_are_told_as_such(tiny, tmp_path, monkeypatch):
    """A folder is not the phantom; its run is called by its name, wherever the command is given."""
    folder = tmp_path / "mine"
    for name in FOLDERS.values():
        (folder / name).mkdir(parents=True)
        for i in range(2):
            pixels = np.random.default_rng(i).integers(0, 256, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"slice-{i}.png")
    monkeypatch.chdir(folder)
    asked = {}
    monkeypatch.setattr(
        "ctmri_utils.runs.train.fit",
        lambda model, slices, *args, **options: (
            asked.update(options | {"slices": slices}) or fit(model, slices, *args, **options)
        ),
    )
    changes = {"dataset": ".", "steps": 0, "scans_steps": 2, "scans_size": 32, "phantom_steps": 3}
    assert train(tiny, changes=changes) == tmp_path / "runs/mine-ci-3"
    told = read_toml(tmp_path / "runs/mine-ci-3/settings.toml")
    assert (
        told["steps"] == 2
        and len(load_checkpoint(tmp_path / "runs/mine-ci-3/checkpoint.pt")["losses"]) == 2
    )
    assert asked["slices"].ct_names == asked["slices"].mri_names == ("slice-0", "slice-1")
    # both test slices are watched
    assert torch.equal(asked["on_step"].ct, asked["on_step"].mri) and len(asked["on_step"].ct) == 2


def test_the_seed_draws_patients_weights_and_order(tiny, tmp_path):
    for seed in ("3", "4"):
        main(
            [
                "train",
                str(tiny),
                "-p",
                "seed",
                seed,
                "-p",
                "learning_rate",
                "0",
                "--output",
                str(tmp_path / seed),
            ]
        )
    one, other = (load_checkpoint(tmp_path / seed / "checkpoint.pt") for seed in ("3", "4"))
    assert not torch.equal(
        one["model"]["G_ct2mri.model.1.weight"], other["model"]["G_ct2mri.model.1.weight"]
    )
    assert one["identity"]["data"] != other["identity"]["data"] and (
        one["identity"]["seed"],
        other["identity"]["seed"],
    ) == (3, 4)


def test_a_machine_without_git_trains_too(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["train", str(tiny)]) == 0
    assert "git revision: unknown\n" in (tmp_path / "runs/phantom-ci-3/environment.txt").read_text()


@pytest.mark.parametrize(
    ("status", "said"),
    [("", "git revision: abc123\n"), (" M train.py", "git revision: abc123 with changes\n")],
)
def test_the_environment_names_the_command_and_the_revision_of_the_code(
    tmp_path, monkeypatch, status, said
):
    def git(command, **_):
        assert command[:3] == ["git", "-C", str(tmp_path)]
        return subprocess.CompletedProcess(
            command, 0, {"rev-parse": "abc123\n", "status": status}[command[3]]
        )

    monkeypatch.setattr("ctmri_utils.machine.CHECKOUT", tmp_path)
    monkeypatch.setattr(subprocess, "run", git)
    monkeypatch.setattr(sys, "argv", ["ctmri_utils", "train", "my.toml"])
    assert environment().endswith(said) and environment().startswith(
        "command: ctmri_utils train my.toml\n"
    )


def test_a_missing_tensorboard_is_named_with_its_extra_before_the_training(
    tiny, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main(["train", str(tiny), "--tensorboard"]) == 1
    assert (
        capsys.readouterr().err
        == "train: --tensorboard needs tensorboard: pip install 'ctmri-utils[train]'\n"
    )
    assert not (tmp_path / "runs").exists()


def test_tensorboard_gets_every_loss_once(tiny, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    main(["train", str(tiny), "--tensorboard"])
    run = tmp_path / "runs/phantom-ci-3"
    events = EventAccumulator(str(run)).Reload()
    losses = load_checkpoint(run / "checkpoint.pt")["losses"]
    for name in losses[0]:
        found = events.Scalars(f"losses/{name}")
        assert [scalar.step for scalar in found] == [1, 2, 3, 4]
        assert [scalar.value for scalar in found] == pytest.approx(
            [step[name] for step in losses], rel=1e-6
        )
    assert {image.step for image in events.Images("strip")} <= {1, 2, 3, 4} and events.Images(
        "strip"
    )[-1].step == 4


def test_a_run_folder_in_the_way_gets_one_sentence(tiny, tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    assert main(["train", str(tiny), "--output", str(tmp_path / "taken")]) == 1
    assert (
        "taken cannot be written to (Not a directory): choose another folder for the run"
        in capsys.readouterr().err
    )


def test_a_refused_run_changes_nothing_and_is_not_called_trained(tiny, tmp_path, capsys):
    def everything():
        return {
            path: path.is_file() and (path.read_bytes(), path.stat().st_mtime_ns)
            for path in (tmp_path / "runs").rglob("*")
        }

    assert main(["train", str(tiny), "-p", "crop_size", "64", "--tensorboard"]) == 1
    assert not (tmp_path / "runs").exists()
    main(["train", str(tiny)])
    before = everything()
    capsys.readouterr()
    assert main(["train", str(tiny), "-p", "gan_mode", "hinge", "--tensorboard"]) == 1
    said = capsys.readouterr()
    assert (
        "cannot be resumed: it belongs to another run, with gan_mode lsgan instead of hinge"
        in said.err
    )
    assert "already trained" not in said.out and everything() == before


def test_the_environment_is_noted_for_each_time_that_steps_are_made(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("ctmri_utils.runs.train.environment", lambda: "once\n")
    for stop in (2, None, None):  # the last has nothing to do
        with monkeypatch.context() as patch:
            patch.setattr(
                "ctmri_utils.runs.train.fit",
                lambda *args, stop=stop, **options: fit(*args, **options, stop_at=stop),
            )
            main(["train", str(tiny)])
    assert (tmp_path / "runs/phantom-ci-3/environment.txt").read_text() == "once\nonce\n"


def test_a_folder_for_the_settings_file_gets_one_sentence(tmp_path, capsys):
    assert main(["train", str(tmp_path)]) == 1
    assert (
        capsys.readouterr().err
        == f"train: {tmp_path} cannot be read (Is a directory): give the path of a settings file\n"
    )


def test_a_folder_that_is_read_only_gets_one_sentence_before_the_work(
    tiny, tmp_path, monkeypatch, capsys
):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("ctmri_utils.files.tempfile.TemporaryFile", read_only)
    monkeypatch.setattr(
        "ctmri_utils.runs.train.load_scans", lambda *_: pytest.fail("this may take minutes")
    )
    assert main(["train", str(tiny)]) == 1
    run = tmp_path / "runs/phantom-ci-3"
    assert (
        capsys.readouterr().err
        == f"train: {run} cannot be written to (Read-only file system): choose another folder for "
        "the run\n"
    )


def test_a_file_of_the_run_that_cannot_be_written_gets_one_sentence_and_the_step_is_kept(
    tiny, tmp_path, capsys
):
    run = tmp_path / "runs/phantom-ci-3"
    (run / "losses.csv").mkdir(parents=True)
    assert main(["train", str(tiny)]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert (
        said == f"train: {run / 'losses.csv'} cannot be used (Is a directory): check the path, its "
        "permissions and the disk"
    )
    assert load_checkpoint(run / "checkpoint.pt")["step"] == 1


def test_networks_beyond_the_memory_are_refused_before_they_are_made(tiny, monkeypatch, capsys):
    assert main(["train", str(tiny), "-p", "ngf", "65536"]) == 1
    assert "GB of memory but there are" in capsys.readouterr().err
    pages = {"SC_PAGE_SIZE": 1000, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr(os, "sysconf", pages.get)
    model = CycleGAN(Architecture(40, 40, 1, 1))
    learning = [*model.generator_parameters, *model.discriminator_parameters]
    trained = sum(weight.numel() for weight in learning)
    averaged = sum(weight.numel() for weight in model.averaged.parameters())
    wide = Settings(ngf=40, ndf=40, n_blocks=1, n_layers=1)
    pages["SC_PHYS_PAGES"] = (16 * trained + 4 * averaged) / 1000
    check_memory(wide, torch.device("cpu"))
    pages["SC_PHYS_PAGES"] -= 1
    with pytest.raises(
        ValueError,
        match="the networks and their optimizers need 0 GB .* choose a smaller ngf, ndf or "
        "n_blocks",
    ):
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
    assert main(["train", str(tiny)]) == 1
    assert (
        capsys.readouterr().err
        == "train: memory ran out: choose smaller images, batches or networks, or fewer slices\n"
    )


def test_other_errors_of_torch_are_not_called_so(tiny, monkeypatch):
    monkeypatch.setattr(
        "ctmri_utils.runs.train.load_scans", lambda *_: torch.zeros(2) @ torch.zeros(3)
    )
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        main(["train", str(tiny)])


def test_two_processes_train_as_one_with_the_double_batch(tiny, tmp_path):
    """Two CPU processes over gloo, as torchrun starts them (Accelerate's launcher starts several
    only on GPUs); the first writes.
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "CTMRI_THREADS": "1",
    }
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "ctmri_utils",
        "train",
        str(tiny),
        "--output",
        str(tmp_path / "two"),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Run in ") == 1
    main(["train", str(tiny), "-p", "batch_size", "2", "--output", str(tmp_path / "one")])
    two, one = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("two", "one"))
    assert two["identity"]["processes"] == 2 and len(two["processes"]) == 2
    assert not any(
        torch.equal(*pools)
        for pools in zip(*(process["pools"] for process in two["processes"]), strict=True)
    )
    for ours, theirs in zip(two["losses"], one["losses"], strict=True):
        # float32: the mean over processes is added in another order
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    for name in (name for name in two["model"] if name.endswith("weight")):
        # Adam divides by the gradient's size, so where that is nearly 0 rounding may move a weight
        # by a step of 6e-4; a bias before instance norm has no gradient but rounding, so biases say
        # nothing
        torch.testing.assert_close(two["model"][name], one["model"][name], atol=1e-3, rtol=0)
    # and the two-process run resumes: nothing is left to do
    assert (
        "is already trained"
        in subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=240
        ).stdout
    )


def test_accelerates_notebook_launcher_starts_it_from_a_lesson(tiny, tmp_path):
    from accelerate import notebook_launcher

    notebook_launcher(train, (tiny, tmp_path / "launched"), num_processes=1)
    main(["train", str(tiny), "--output", str(tmp_path / "plain")])
    one, other = (
        load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("launched", "plain")
    )
    assert_same_bits(one["model"], other["model"])


@pytest.fixture
def grey_set(tmp_path):
    """A folder of 8-bit slices, whose CT has no HU."""
    for folder in ("trainA", "trainB", "testA", "testB"):
        (tmp_path / "grey" / folder).mkdir(parents=True)
        for i in range(2):
            pixels = np.random.default_rng(i).integers(0, 255, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "grey" / folder / f"{folder}{i}.png")
    return str(tmp_path / "grey")


def test_the_mask_loss_refuses_grey_levels(tiny, tmp_path, capsys, grey_set):
    words = ["--dataset", grey_set, "--scans-size", "32", "--mask", "10"]
    assert main(["train", str(tiny), *words]) == 1
    assert "the CT of this set is in grey levels" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_networks_see_grey_levels_without_a_ct_map(tiny, capsys, grey_set):
    words = ["--dataset", grey_set, "--scans-size", "32", "--ct-map", "piecewise"]
    assert main(["train", str(tiny), *words]) == 0
    printed = capsys.readouterr().out
    assert "CT is in grey levels: the networks see it without a CT map" in printed
    run = Path(printed.rpartition("Run in ")[2].strip())
    assert load_translator(run).architecture.ct_map == "linear"
    assert read_toml(run / "settings.toml")["ct_map"] == "linear"


@pytest.mark.parametrize(
    "settings",
    [
        ["sampling", "position"],
        [
            "sampling",
            "paired",
            "supervised",
            "100",
            "cycle_ct",
            "0",
            "cycle_mri",
            "0",
            "identity",
            "0",
        ],
        ["nce", "1", "ct_map", "piecewise", "mask", "10"],
    ],
)
def test_remedies_are_settings_like_the_others(tiny, settings):
    words = [
        word for pair in zip(settings[::2], settings[1::2], strict=True) for word in ("-p", *pair)
    ]
    assert main(["train", str(tiny), *words]) == 0
    assert load_checkpoint(tiny.parent / "runs" / "phantom-ci-3" / "checkpoint.pt")["step"] == 4
