"""The number of threads is measured once, kept with the run, and left alone where it is decided."""

import time

import pytest
import torch
from fit_tensors import fit
from test_training import start

from ctmri_utils.cyclegan import threads
from ctmri_utils.cyclegan.resume import load_checkpoint
from ctmri_utils.cyclegan.threads import SlowdownWatch, fastest_threads


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
        threads, "seconds_of", lambda step: milliseconds[torch.get_num_threads()] / 1000
    )
    assert fastest_threads(lambda: None, cores) == expected


def test_seconds_are_measured():
    assert 0.02 <= threads.seconds_of(lambda: time.sleep(0.02)) < 2


def train(tmp_path, steps=120, **options):
    model, ct, mri = start()
    fit(model, ct, mri, seed=3, steps=steps, checkpoint=tmp_path / "run.pt", **options)
    return model


def choose(monkeypatch, number, calls):
    def fastest(step, cores):
        step()
        calls.append(cores)
        return number

    monkeypatch.setattr(threads, "fastest_threads", fastest)


def test_a_training_measures_once_and_a_resumed_one_keeps_the_number(tmp_path, monkeypatch):
    calls = []
    choose(monkeypatch, 2, calls)
    torch.set_num_threads(1)
    train(tmp_path, stop_at=2)
    assert torch.get_num_threads() == 2 and len(calls) == 1
    assert load_checkpoint(tmp_path / "run.pt")["threads"] == 2

    torch.set_num_threads(1)
    train(tmp_path, stop_at=3)
    assert torch.get_num_threads() == 2 and len(calls) == 1


def test_measuring_changes_no_digit(tmp_path, monkeypatch):
    choose(monkeypatch, 1, [])
    torch.set_num_threads(1)
    measured = train(tmp_path / "one", stop_at=3)
    monkeypatch.setenv("CTMRI_THREADS", "1")
    plain = train(tmp_path / "two", stop_at=3)
    for one, other in zip(measured.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("decided", ["by the reader", "by a short training"])
def test_nothing_is_measured_where_it_is_decided(tmp_path, monkeypatch, decided):
    calls = []
    choose(monkeypatch, 2, calls)
    if decided == "by the reader":
        monkeypatch.setenv("CTMRI_THREADS", "1")
        train(tmp_path, stop_at=1)
    else:
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
