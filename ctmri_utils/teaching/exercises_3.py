"""Checks of the exercises of lesson 3: losses, the pool and the training step."""

from __future__ import annotations

import math

import torch

from .checking import check

NETWORKS = {"G_ct2mri", "G_mri2ct", "D_ct", "D_mri"}


@check("3.1", "your answer is one number", "a tensor with one element has .item()")
def one_number(cost):
    return math.isfinite(float(cost))


@check(
    "3.1",
    "your verdict stands halfway between real and fake",
    "this loss takes logits: which logit stands for a probability of one half?",
)
def undecided_logit(cost):
    return abs(float(cost) - math.log(2)) < 0.01


def slices() -> torch.Tensor:
    return torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def same(images, expected) -> bool:
    return images.shape == expected.shape and bool((images - expected).abs().max() < 1e-5)


@check(
    "3.2",
    "both round trips of your functions lead back to the start: no cycle loss",
    "what is lost on the way out cannot come back",
)
def no_cycle_loss(to_mri, to_ct):
    return same(to_ct(to_mri(slices())), slices()) and same(to_mri(to_ct(slices())), slices())


@check(
    "3.2",
    "neither function changes a slice of the modality that it makes: no identity loss",
    "neither function can tell a CT from an MR slice: what may it do to both?",
)
def no_identity_loss(to_mri, to_ct):
    return same(to_mri(slices()), slices()) and same(to_ct(slices()), slices())


@check("3.3", "your answer counts images", "how many images enter the pool in one step?")
def counts_images(images):
    return not 20 <= float(images) <= 30


@check(
    "3.3",
    "your answer allows for both draws",
    "first the coin decides whether anything is replaced, then the slot is drawn",
)
def both_draws(images):
    return 90 <= float(images) <= 110


@check("3.4", "your answer names networks of the model", "names such as G_ct2mri, in a list")
def known_names(names):
    return bool(names) and set(names) <= NETWORKS


@check("3.4", "every network you name collects gradients", "what does `frozen` keep back?")
def no_judges(names):
    return not {"D_ct", "D_mri"} & set(names)


@check("3.4", "no network is missing", "in which terms does each generator stand?")
def all_learners(names):
    return {"G_ct2mri", "G_mri2ct"} <= set(names)
