"""What `fit` refuses, before it trains."""

import pytest
import torch
from helpers.fit_tensors import SMALL, small_model, train_small

from ctmri_utils.cyclegan.batches import Slices
from ctmri_utils.cyclegan.model import Translator
from ctmri_utils.cyclegan.training import fit
from ctmri_utils.settings import Architecture, Training

NO_CYCLE = {"cycle_ct": 0, "cycle_mri": 0}


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"lr_policy": "square"}, "lr_policy="),
        ({"precision": "fp16"}, "precision="),
        ({"crop_size": 64}, "crop_size=64"),
        ({"steps": 0}, "steps=0"),
        ({"architecture": Architecture(4, 4, 1, 1, ct_channels=2, mri_channels=2)}, "ct is of"),
        ({"sampling": "paired"}, "sampling="),
        # 5 CTs and 7 MRs.
        ({"sampling": "paired", "paired": True}, "sampling="),
        ({"sampling": "position"}, "sampling="),
        ({"sampling": "position", "positions": ([0.5] * 5, [0.5] * 6)}, "sampling="),
        ({"objective": {"supervised": 1}}, "supervised=1"),
        ({"objective": NO_CYCLE, "lr_policy": "plateau"}, "lr_policy="),
        ({"objective": NO_CYCLE | {"identity": 0, "adversarial": 0}}, "weights"),
        ({"stop_at": -1}, "stop_at=-1"),
        ({"save_every": 0}, "save_every=0"),
        ({"names": (("one",), ())}, "ct_names"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, name):
    with pytest.raises(ValueError, match=name):
        train_small(**options)


@pytest.mark.parametrize("seed", [-1, None, "a", 1.0])
def test_a_seed_is_a_whole_number(seed):
    model, ct, mri = small_model()
    with pytest.raises(ValueError, match="seed="):
        fit(model, Slices(ct, mri), Training(steps=2), seed=seed)


def with_nan(ct, mri):
    mri[4, 0, 3, 3] = torch.nan
    return Slices(ct, mri)


@pytest.mark.parametrize(
    ("slices_of", "name"),
    [
        (lambda ct, mri: (ct, mri), "type tuple"),
        (lambda ct, mri: Slices(ct.numpy(), mri.numpy()), "type Slices"),
        (lambda ct, mri: Slices(ct, mri[:0]), "mri is of shape"),
        (lambda ct, mri: Slices(ct * 1000, mri), "CT slice number 0"),
        (with_nan, "MR slice number 4"),
    ],
)
def test_what_is_no_slices_to_train_on_is_refused(slices_of, name):
    model, ct, mri = small_model()
    with pytest.raises(ValueError, match=name):
        fit(model, slices_of(ct, mri), Training(steps=2), seed=1)


def test_a_translator_is_refused():
    _, ct, mri = small_model()
    with pytest.raises(ValueError, match="Translator"):
        fit(Translator(SMALL), Slices(ct, mri), Training(steps=2), seed=1)
