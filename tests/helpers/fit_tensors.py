"""Small trainings for tests, on bare tensors and with the options of `Training` as keywords."""

import torch

from ctmri_utils.cyclegan.batches import Slices
from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.cyclegan.training import fit
from ctmri_utils.settings import Architecture, Objective, Training

SMALL = Architecture(ngf=4, ndf=4, n_blocks=1, n_layers=1)

# The arguments of `fit`; all other options are settings of `Training`.
FIT_OPTIONS = ("steps", "checkpoint", "stop_at", "save_every", "on_step", "validate")


def fit_tensors(model, ct, mri, *, seed, names=((), ()), positions=None, paired=False, **options):
    """`fit`, without the two objects that hold slices and settings."""
    slices = Slices(ct, mri, *names, positions=positions, paired=paired)
    fit_options = {name: options.pop(name) for name in FIT_OPTIONS if name in options}
    return fit(model, slices, Training(**options), seed=seed, **fit_options)


def small_model(seed=3, architecture=SMALL, **objective):
    """A model, five CT slices and seven MR slices."""
    torch.manual_seed(seed)
    ct, mri = torch.rand(5, 1, 32, 32) * 2 - 1, torch.rand(7, 1, 32, 32) * 2 - 1
    return CycleGAN(architecture, Objective(**{"pool_size": 3} | objective)), ct, mri


def train_small(seed=3, architecture=SMALL, objective=None, **options):
    """A training of eight steps: the model and its losses."""
    model, ct, mri = small_model(seed, architecture, **objective or {})
    return model, fit_tensors(
        model, ct, mri, **{"steps": 8, "batch_size": 2, "seed": seed} | options
    )


def assert_same_bits(state, expected):
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in state)
