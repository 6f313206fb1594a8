"""Threads and precision are measured once, kept with the run, and left alone where decided."""

import pytest
import torch
from helpers.fit_tensors import fit_tensors, small_model

from ctmri_utils.cyclegan import tuning
from ctmri_utils.cyclegan.batches import Slices
from ctmri_utils.cyclegan.engine import SlowdownWatch
from ctmri_utils.cyclegan.resume import load_checkpoint
from ctmri_utils.cyclegan.tuning import choose_precision, fastest_threads


@pytest.fixture(autouse=True)
def threads_as_before(monkeypatch):
    monkeypatch.delenv("CTMRI_THREADS", raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("milliseconds", "cores", "expected"),
    [
        ({1: 40, 2: 20, 4: 10}, 4, 4),
        ({1: 40, 2: 20, 4: 10}, 2, 2),
        # 5 % are not worth another core.
        ({1: 40, 2: 38, 4: 37}, 4, 1),
        # A busy core makes two threads slow.
        ({1: 10, 2: 80}, 2, 1),
        # Two bring nothing, four do.
        ({1: 40, 2: 40, 4: 15}, 4, 4),
    ],
)
def test_the_fastest_number_wins_and_fewer_are_preferred(
    monkeypatch, milliseconds, cores, expected
):
    monkeypatch.setattr(
        tuning, "median_seconds", lambda step: milliseconds[torch.get_num_threads()] / 1000
    )
    assert fastest_threads(lambda: None, cores) == expected


def train(tmp_path, steps=120, translation_noise=0.0, **options):
    model, ct, mri = small_model(translation_noise=translation_noise)
    fit_tensors(model, ct, mri, seed=3, steps=steps, checkpoint=tmp_path / "run.pt", **options)
    return model


def choose(monkeypatch, number, calls):
    def fastest(step, cores):
        step()
        calls.append(cores)
        return number

    monkeypatch.setattr(tuning, "fastest_threads", fastest)


def test_threads_are_measured_once_and_kept_on_resume(tmp_path, monkeypatch):
    calls = []
    choose(monkeypatch, 2, calls)
    torch.set_num_threads(1)
    train(tmp_path, stop_at=2)
    assert torch.get_num_threads() == 2
    assert len(calls) == 1
    assert load_checkpoint(tmp_path / "run.pt")["threads"] == 2

    torch.set_num_threads(1)
    train(tmp_path, stop_at=3)
    assert torch.get_num_threads() == 2
    assert len(calls) == 1


def test_measuring_changes_no_digit(tmp_path, monkeypatch):
    choose(monkeypatch, 1, [])
    torch.set_num_threads(1)
    measured = train(tmp_path / "one", stop_at=3, translation_noise=0.1)
    monkeypatch.setenv("CTMRI_THREADS", "1")
    plain = train(tmp_path / "two", stop_at=3, translation_noise=0.1)
    for one, other in zip(measured.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


def test_nothing_is_measured_where_the_reader_decided(tmp_path, monkeypatch):
    choose(monkeypatch, 2, calls := [])
    monkeypatch.setenv("CTMRI_THREADS", "1")
    train(tmp_path, stop_at=1)
    assert not calls


def test_nothing_is_measured_in_a_short_training(tmp_path, monkeypatch):
    choose(monkeypatch, 2, calls := [])
    train(tmp_path, steps=4)
    assert not calls


def test_a_threefold_slowdown_gets_one_sentence(recwarn):
    watch = SlowdownWatch()
    for seconds in [0.1] * 30 + [0.25] * 30:
        watch(seconds)
    assert not recwarn
    for _ in range(40):
        watch(0.4)
    [warning] = recwarn
    assert "steps take 0.40 s now and took 0.10 s at first" in str(warning.message)


def test_one_slow_step_is_no_slowdown(recwarn):
    watch = SlowdownWatch()
    for k in range(60):
        watch(5.0 if k % 10 == 0 else 0.1)
    assert not recwarn


def no_bf16(monkeypatch, lacks):
    monkeypatch.setattr(tuning, "cpu_lacks_bf16", lambda: lacks)


def test_a_cpu_without_bf16_is_never_tried_with_it(tmp_path, monkeypatch):
    no_bf16(monkeypatch, True)
    monkeypatch.setattr(tuning, "median_seconds", lambda step: pytest.fail("measured"))
    monkeypatch.setenv("CTMRI_THREADS", "1")
    train(tmp_path, steps=3, precision="auto")
    assert load_checkpoint(tmp_path / "run.pt")["identity"]["precision"] == "fp32"


@pytest.mark.parametrize(("seconds", "expected"), [([2.0, 1.0], "bf16"), ([1.0, 2.0], "fp32")])
def test_a_cpu_with_bf16_takes_what_is_faster(monkeypatch, seconds, expected):
    no_bf16(monkeypatch, False)
    model, ct, mri = small_model()
    left = list(seconds)
    monkeypatch.setattr(tuning, "median_seconds", lambda step: step() or left.pop(0))
    before = [weight.clone() for weight in model.parameters()]
    assert choose_precision(model, Slices(ct, mri)) == expected
    for weight, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(weight, old)
        assert weight.grad is None


def test_a_resumed_run_keeps_its_precision(tmp_path, monkeypatch):
    no_bf16(monkeypatch, True)
    monkeypatch.setenv("CTMRI_THREADS", "1")
    train(tmp_path, steps=4, stop_at=2, precision="auto")
    monkeypatch.setattr("ctmri_utils.cyclegan.training.choose_precision", lambda *_: "bf16")
    train(tmp_path, steps=4, precision="auto")
    assert load_checkpoint(tmp_path / "run.pt")["identity"]["precision"] == "fp32"
