"""`fit` for tests: on bare tensors, with the options of `Training` as keywords."""

from ctmri_utils.cyclegan.batches import Slices
from ctmri_utils.cyclegan.training import fit as fit_slices
from ctmri_utils.settings import Training

OWN = ("steps", "checkpoint", "stop_at", "save_every", "on_step", "validate")


def fit(model, ct, mri, *, seed, names=((), ()), positions=None, paired=False, **options):
    slices = Slices(ct, mri, *names, positions=positions, paired=paired)
    own = {name: options.pop(name) for name in OWN if name in options}
    return fit_slices(model, slices, Training.of(options), seed=seed, **own)
