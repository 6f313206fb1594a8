"""A training that stops, however it does, resumes the very same run, and keeps what it has."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.fit_tensors import assert_same_bits, fit_tensors, small_model, train_small

from ctmri_utils.cyclegan.batches import Slices
from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.cyclegan.resume import load_checkpoint, restore_run, run_state
from ctmri_utils.cyclegan.training import Trainer
from ctmri_utils.cyclegan.training import fit as fit_slices
from ctmri_utils.machine import delayed_interrupt
from ctmri_utils.runs.weights import load_translator
from ctmri_utils.seeds import random_states, restore_random_states
from ctmri_utils.settings import Architecture, Settings, Training

TESTS = Path(__file__).parents[1]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.pt"


def test_resume_continues_the_very_same_run(path, tmp_path):
    straight, losses = train_small(checkpoint=tmp_path / "straight.pt")
    train_small(checkpoint=path, stop_at=5)
    torch.manual_seed(99)  # whatever happened in between
    steps = []
    resumed, resumed_losses = train_small(
        checkpoint=path, on_step=lambda step, _: steps.append(step)
    )
    assert steps == [6, 7, 8]
    assert_same_bits(straight.state_dict(), resumed.state_dict())
    assert torch.equal(straight.pool_ct.images, resumed.pool_ct.images)
    assert losses == resumed_losses
    assert len(losses) == 8


@pytest.mark.parametrize(
    "options",
    [
        {"lr_policy": "step"},
        {"lr_policy": "cosine"},
        {"lr_policy": "plateau"},
        {"ema": 0},
        {"clip_norm": 0.1},
        {"precision": "bf16"},
        {"rotation_deg": 10, "jitter": 0.2, "load_size": 36, "crop_size": 32},
        {"architecture": Architecture(4, 4, 1, 1, dropout=True)},
        {"architecture": Architecture(4, 4, 1, 1, norm="batch", spectral=True)},
        {"objective": {"gan_mode": "wgangp"}},
        # Noise and places are drawn anew in every step; the contrast has weights of its own.
        {"objective": {"translation_noise": 0.1}},
        {"objective": {"nce": 1.0}},
        {"objective": {"nce": 5.0, "cycle_ct": 0.0, "cycle_mri": 0.0, "identity": 0.0}},
        {"objective": {"gradient": 1.0, "mind": 1.0, "correlation": 1.0}},
    ],
)
def test_resume_is_exact_with_every_option(path, options):
    straight, _ = train_small(steps=5, **options)
    train_small(checkpoint=path, steps=5, stop_at=2, **options)
    torch.manual_seed(99)
    resumed, _ = train_small(checkpoint=path, steps=5, **options)
    assert_same_bits(straight.state_dict(), resumed.state_dict())


def test_a_finished_run_is_not_trained_again(path):
    train_small(checkpoint=path)
    _, losses = train_small(checkpoint=path, on_step=lambda step, _: pytest.fail("trained"))
    assert len(losses) == 8


def test_an_interrupt_between_steps_keeps_the_last_one(path):
    def interrupt(step, losses):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_small(checkpoint=path, on_step=interrupt)
    assert load_checkpoint(path)["step"] == 4
    assert_same_bits(train_small(checkpoint=path)[0].state_dict(), train_small()[0].state_dict())


def interrupt(step):
    raise KeyboardInterrupt


def press_ctrl_c(step):
    signal.raise_signal(signal.SIGINT)
    return step


def lose_the_cycle(step):
    return step._replace(losses=step.losses | {"cycle": torch.tensor(torch.nan)})


def diverge(step):
    return step._replace(losses=step.losses | {"cycle": torch.tensor(torch.inf)})


@pytest.mark.parametrize(
    ("at", "how", "error", "kept"),
    [
        (6, interrupt, KeyboardInterrupt, 4),
        (3, lose_the_cycle, FloatingPointError, 2),
        (3, diverge, FloatingPointError, 2),
        # Ctrl-C lets the step end.
        (2, press_ctrl_c, KeyboardInterrupt, 2),
        (5, press_ctrl_c, KeyboardInterrupt, 5),
        (8, press_ctrl_c, KeyboardInterrupt, 8),
    ],
)
def test_what_breaks_within_a_step_is_resumed(path, monkeypatch, at, how, error, kept):
    """From the last whole step that was saved: every second one is."""
    training_step = CycleGAN.training_step
    calls = []

    def broken(self, ct, mri):
        calls.append(1)
        step = training_step(self, ct, mri)
        return how(step) if len(calls) == at else step

    monkeypatch.setattr(CycleGAN, "training_step", broken)
    with pytest.raises(error):
        train_small(checkpoint=path, save_every=2)
    assert load_checkpoint(path)["step"] == kept
    assert_same_bits(train_small(checkpoint=path)[0].state_dict(), train_small()[0].state_dict())


def test_ctrl_c_waits_and_a_second_one_does_not():
    before = signal.getsignal(signal.SIGINT)
    done = []
    with pytest.raises(KeyboardInterrupt), delayed_interrupt():
        signal.raise_signal(signal.SIGINT)
        done.append("whole")
    with pytest.raises(KeyboardInterrupt), delayed_interrupt():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("never")
    assert done == ["whole"]
    assert signal.getsignal(signal.SIGINT) is before


def test_forty_steps_are_twenty_and_kill_and_the_rest(path):
    """kill -9 before the save of step 20: the run goes on from step 10, to the same bits."""
    arguments = [str(path), str(torch.get_num_threads())]
    command = [sys.executable, "-m", "helpers.training_to_kill", *arguments]
    with subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline().strip() == b"step 20"
        process.kill()
    assert load_checkpoint(path)["step"] == 10
    resumed = train_small(steps=40, checkpoint=path, save_every=10)[0]
    assert_same_bits(train_small(steps=40)[0].state_dict(), resumed.state_dict())


def test_weights_that_are_not_finite_are_not_saved(path):
    """Gradients may break where the losses are still finite."""
    model, ct, mri = small_model()

    def spoil(step, losses):
        if step == 4:
            with torch.no_grad():
                next(model.G_mri2ct.parameters())[0] = torch.inf

    with pytest.raises(FloatingPointError, match="weights"):
        fit_tensors(model, ct, mri, seed=3, steps=8, checkpoint=path, save_every=2, on_step=spoil)
    assert load_checkpoint(path)["step"] == 2


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"seed": 4}, "seed 3 instead of 4"),
        ({"steps": 9}, "steps 8 instead of 9"),
        ({"batch_size": 1}, "batch_size 2 instead of 1"),
        ({"learning_rate": 1e-3}, "learning_rate"),
        ({"objective": {"cycle_ct": 3}}, "cycle_ct 10.0 instead of 3.0"),
        ({"precision": "bf16"}, "precision fp32 instead of bf16"),
    ],
)
def test_a_run_with_other_settings_is_not_resumed(path, change, what):
    train_small(checkpoint=path, stop_at=2)
    kept = path.read_bytes()
    with pytest.raises(ValueError, match=f"another run, with .*{what}"):
        train_small(checkpoint=path, **change)
    assert path.read_bytes() == kept


def test_a_run_on_other_data_is_not_resumed(path):
    train_small(checkpoint=path, stop_at=2)
    model, ct, mri = small_model()
    with pytest.raises(ValueError, match="another run, with data"):
        fit_tensors(model, ct / 2, mri, steps=8, batch_size=2, seed=3, checkpoint=path)


def test_every_random_source_comes_back():
    def draw():
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    states = random_states()
    first = draw()
    restore_random_states(states)
    assert draw() == first != draw()


def test_the_scale_of_fp16_gradients_comes_back():
    """GradScaler also works on the CPU, where training does not need it."""
    one, other = (Trainer(small_model()[0], Training(steps=3)) for _ in range(2))
    one.engine.scaler = torch.amp.GradScaler("cpu", init_scale=64)
    other.engine.scaler = torch.amp.GradScaler("cpu")
    one.engine.backward(torch.zeros((), requires_grad=True))  # it is made when first used
    restore_run(other, run_state(one))
    assert other.engine.scaler.get_scale() == 64


def test_an_unwritable_folder_is_refused_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file.* cannot be written to"):
        train_small(
            checkpoint=tmp_path / "file" / "run.pt",
            on_step=lambda step, _: pytest.fail("trained"),
        )


def test_whole_settings_train_without_touching_the_models(path):
    model, ct, mri = small_model()
    settings = Settings(steps=2, ngf=99, cycle_ct=77)
    fit_slices(model, Slices(ct, mri), settings, seed=1, checkpoint=str(path))
    identity = load_checkpoint(path)["identity"]
    assert (identity["ngf"], identity["cycle_ct"], identity["steps"]) == (4, 10, 2)
    assert load_translator(path)
