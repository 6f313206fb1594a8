"""Small trainings for tests, on bare tensors and with the options of `Training` as keywords."""

import torch

from ctmri_utils.cyclegan.batches import Slices
from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.cyclegan.training import fit as fit_slices
from ctmri_utils.settings import Architecture, Objective, Training

SMALL = Architecture(ngf=4, ndf=4, n_blocks=1, n_layers=1)
OWN = ("steps", "checkpoint", "stop_at", "save_every", "on_step", "validate")


def fit(model, ct, mri, *, seed, names=((), ()), positions=None, paired=False, **options):
    slices = Slices(ct, mri, *names, positions=positions, paired=paired)
    own = {name: options.pop(name) for name in OWN if name in options}
    return fit_slices(model, slices, Training.of(options), seed=seed, **own)


def start(seed=3, architecture=SMALL, **objective):
    """A model, five CT slices and seven MR slices."""
    torch.manual_seed(seed)
    ct, mri = torch.rand(5, 1, 32, 32) * 2 - 1, torch.rand(7, 1, 32, 32) * 2 - 1
    return CycleGAN(architecture, Objective(**{"pool_size": 3} | objective)), ct, mri


def train(seed=3, architecture=SMALL, objective=None, **options):
    """A training of eight steps: the model and its losses."""
    model, ct, mri = start(seed, architecture, **objective or {})
    return model, fit(model, ct, mri, **{"steps": 8, "batch_size": 2, "seed": seed} | options)


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
