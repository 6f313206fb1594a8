"""The checks of lesson 6's exercises: a right answer holds, typical wrong ones get a hint."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from ctmri_utils.runs.study_measures import field_correlations
from ctmri_utils.scans.datasets import phantom_scans

NETWORK_MAE, CONTRAST = 80.0, 40.0
CUT, UNCUT = 80.0, 180.0


@pytest.fixture(scope="module")
def uneven():
    return phantom_scans(1, 2, 64, seed=1, bias_percent=40.0)


@pytest.fixture(scope="module")
def fake_ct(uneven):
    """Translations that hold the MR itself: all of the field is in them."""
    return uneven.test.mri


def to_mri(ct):
    return ct


def disturbed(fake_ct):
    noise = torch.randn(fake_ct.shape, generator=torch.Generator().manual_seed(1))
    return {
        "rounding": ((fake_ct + 1) * 127.5).round() / 127.5 - 1,
        "blur": torch.from_numpy(gaussian_filter(fake_ct.numpy(), (0, 0, 1, 1))),
        "noise": fake_ct + 0.01 * noise,
    }


def readable(changed, uneven):
    return {name: np.mean(field_correlations(to_mri(ct), uneven)) for name, ct in changed.items()}


@pytest.mark.parametrize(
    ("part", "answers"),
    [
        ("6.1", (0.1 * NETWORK_MAE / CONTRAST, NETWORK_MAE, CONTRAST)),
        ("6.2", ("cdb",)),
        ("6.2", ("CDB",)),
        ("6.3", (82.0, CUT, UNCUT)),
    ],
)
def test_a_right_answer_holds(passes, part, answers):
    passes(part, *answers)


@pytest.mark.parametrize(
    ("part", "answers"),
    [
        # In percent; the whole MAE instead of a tenth; the share of 6.2.
        ("6.1", (20.0, NETWORK_MAE, CONTRAST)),
        ("6.1", (0.026, NETWORK_MAE, CONTRAST)),
        ("6.1", (CONTRAST / NETWORK_MAE, NETWORK_MAE, CONTRAST)),
        ("6.2", ("adb",)),
        ("6.2", ("cad",)),
        ("6.2", ("bdc",)),
        ("6.2", ("cd",)),
        # Not cut; background counted.
        ("6.3", (UNCUT, CUT, UNCUT)),
        ("6.3", (30.0, CUT, UNCUT)),
    ],
)
def test_a_wrong_answer_gets_a_hint(gets_a_hint, part, answers):
    gets_a_hint(part, *answers)


def test_the_message_is_disturbed_as_asked(passes, fake_ct, uneven):
    passes("6.4", readable(disturbed(fake_ct), uneven), fake_ct, to_mri, uneven)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        # Rounded to whole network units; blurred across patients; noise of 100 HU.
        ("rounding", lambda ct: ct.round()),
        ("blur", lambda ct: torch.from_numpy(gaussian_filter(ct.numpy(), 3.0))),
        ("noise", lambda ct: ct + torch.randn(ct.shape, generator=torch.manual_seed(0))),
    ],
)
def test_a_message_disturbed_otherwise_gets_a_hint(gets_a_hint, fake_ct, uneven, name, wrong):
    answer = readable(disturbed(fake_ct) | {name: wrong(fake_ct)}, uneven)
    gets_a_hint("6.4", answer, fake_ct, to_mri, uneven)
    del answer[name]
    gets_a_hint("6.4", answer, fake_ct, to_mri, uneven)
