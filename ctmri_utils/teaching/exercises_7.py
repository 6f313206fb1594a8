"""Checks of the exercises of lesson 7: structure losses, PatchNCE, seeds and detectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats
from torch import Tensor

from ..cyclegan import remedies
from .checking import check

STRUCTURE_LOSSES = {
    "gradient": remedies.gradient_loss,
    "MIND": remedies.mind_loss,
    "correlation": remedies.correlation_loss,
}
# What is darker on CT, in network units, is no bone.
BONE_ABOVE = 0.25


@check("7.1", "your answer is a list of losses", "write the names as in the question, in a list")
def known_names(answer: Sequence[str], ct: Tensor, mri: Tensor):
    return not isinstance(answer, str) and set(answer) <= set(STRUCTURE_LOSSES)


@check("7.1", "every loss you name prefers the hollow CT", "the lower loss is preferred")
def names_prefer(answer: Sequence[str], ct: Tensor, mri: Tensor):
    return set(answer) <= fond_of_hollow(ct, mri)


@check("7.1", "no loss is missing", "compare each loss of the hollow CT with that of the true CT")
def none_missing(answer: Sequence[str], ct: Tensor, mri: Tensor):
    return fond_of_hollow(ct, mri) <= set(answer)


def fond_of_hollow(ct: Tensor, mri: Tensor) -> set[str]:
    """The structure losses that prefer a CT without bone, both scans (N, 1, H, W) in [-1, 1]."""
    hollow = ct.where(ct < BONE_ABOVE, -1)
    return {name for name, loss in STRUCTURE_LOSSES.items() if loss(hollow, mri) < loss(ct, mri)}


@check("7.2", "recognised patches make the loss lower than guessing", "is the minus sign there?")
def below_guessing(answer: float):
    return 0 <= answer < math.log(256)


@check(
    "7.2", "the twin counts", "write out the sum: how many of its terms are as large as the top?"
)
def twin_counts(answer: float):
    return abs(answer - math.log(2)) < 0.01


@check(
    "7.3", "with so many seeds the half width is 1 HU or less", "t changes with n, too; ddof is 1"
)
def enough_seeds(answer: int, apart: np.ndarray):
    return half_width(int(answer), apart) <= 1


@check("7.3", "with one seed fewer it is not", "look for the smallest n, counted in seeds")
def no_seed_too_many(answer: int, apart: np.ndarray):
    return answer == int(answer) and half_width(int(answer) - 1, apart) > 1


def half_width(n: int, apart: np.ndarray) -> float:
    """Of the 95 % interval of a mean over n seeds that spread like these differences in HU."""
    if n < 2:
        return math.inf
    return stats.t.ppf(0.975, n - 1) * np.std(apart, ddof=1) / math.sqrt(n)


@check("7.4", "your answer is a probability", "bleeding heads that are called, over all that are")
def probability(answer: float, tpr: float, fpr: float):
    return 0 <= answer <= 1


@check("7.4", "healthy heads are called, too", "of a hundred heads, how many of either kind are?")
def counts_the_healthy(answer: float, tpr: float, fpr: float):
    return math.isclose(answer, 0.1 * tpr / (0.1 * tpr + 0.9 * fpr), rel_tol=0.01)
