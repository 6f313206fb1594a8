"""What a study measures of a trained model: its translation, and what it hides in the cycle."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from ..cyclegan.model import Translator
from ..evaluation import faithfulness, lesions
from ..evaluation.ct_metrics import CT_METRICS
from ..evaluation.distributions import kid
from ..evaluation.features import SMALL, features
from ..evaluation.scores import evaluate
from ..masks import mri_head_mask
from ..scans.datasets import phantom_scans
from ..scans.phantom import SyntheticPatients
from ..scans.physics import LESIONS, TISSUES
from ..scans.unpaired import UnpairedScans

IN_BRAIN = ("csf", "grey matter", "deep grey matter", "white matter", "dura", *LESIONS)
BRAIN = [TISSUES[name].label for name in IN_BRAIN]
SCORED = ("MAE HU", "soft-tissue MAE HU", "bone MAE HU", "bone Dice")

# The receive field of the patients on whom smuggling is measured.
STRONG_FIELD_PERCENT = 40.0

# KID compares the fake CTs with this many real ones.
REAL_CTS = 200


def measure_translation(fake_hu: np.ndarray, scans: UnpairedScans) -> dict[str, float]:
    """What a fake CT of each test patient is worth.

    Args:
        fake_hu: (N, H, W) in HU.
        scans: with the truth of the test patients.

    Returns:
        Means over the patients on whom a measure is defined:
        "MAE HU", "soft-tissue MAE HU", "bone MAE HU", "bone Dice": see `evaluation.CT_METRICS`;
        "lesion contrast", only with lesions: median recovery of their contrast to white matter;
        "lesion TPR", "lesion FPR", only with lesions: of `lesions.detects_lesion`;
        "drift px": mean length of the shift against the true CT;
        "drift to the right px": its mean part along the rows;
        "inverted": share of patients whose translation correlates negatively with the truth inside
        the head;
        "KID": to real CTs of other patients.
    """
    truth = scans.test.truth
    measures = mean_scores(fake_hu, scans)
    if truth.lesion.any():
        measures |= lesion_measures(fake_hu, truth)

    shifts = [
        faithfulness.shift_px(fake, true) for fake, true in zip(fake_hu, truth.ct_hu, strict=True)
    ]
    measures["drift px"] = float(np.mean([np.hypot(*shift) for shift in shifts]))
    measures["drift to the right px"] = float(np.mean([shift[1] for shift in shifts]))
    measures["inverted"] = inverted_share(fake_hu, truth)

    fake_ct = torch.from_numpy((fake_hu / 1000).clip(-1, 1)).float()[:, None]
    real_ct = scans.train.ct[:REAL_CTS]
    distance = kid(features(fake_ct, SMALL), features(real_ct, SMALL), seed=0, resamples=40)
    measures["KID"] = distance.value
    return measures


def mean_scores(fake_hu: np.ndarray, scans: UnpairedScans) -> dict[str, float]:
    """The mean of each scored metric over the patients."""
    metrics = {name: CT_METRICS[name] for name in SCORED}
    scores = evaluate({"": lambda split: fake_hu}, scans.test, scans.spacing_mm, metrics)

    values = scores.groupby("metric")["value"]
    return {name: float(np.nanmean(values.get_group(name))) for name in SCORED}


def lesion_measures(fake_hu: np.ndarray, truth: SyntheticPatients) -> dict[str, float]:
    """How well lesions keep their contrast, and how often they are seen and invented."""
    present = truth.lesion.any((1, 2))
    white_matter = truth.labels == TISSUES["white matter"].label
    brain = np.isin(truth.labels, BRAIN)

    contrast = [
        lesions.lesion_contrast_recovery(
            fake_hu[i], truth.ct_hu_clean[i], truth.lesion[i], white_matter[i]
        )
        for i in np.flatnonzero(present)
    ]
    called = [
        lesions.detects_lesion(fake, inside) for fake, inside in zip(fake_hu, brain, strict=True)
    ]
    rates = lesions.detection_rates(called, present)
    return {
        "lesion contrast": float(np.median(contrast)),
        "lesion TPR": rates.tpr,
        "lesion FPR": rates.fpr,
    }


def inverted_share(fake_hu: np.ndarray, truth: SyntheticPatients) -> float:
    """The share of patients whose translation is a negative of the truth."""
    # The correlation of a constant translation is NaN, which is not below zero.
    with np.errstate(divide="ignore", invalid="ignore"):
        correlations = [
            np.corrcoef(fake[head], true[head])[0, 1]
            for fake, true, head in zip(fake_hu, truth.ct_hu_clean, truth.head, strict=True)
        ]
    return float(np.mean([correlation < 0 for correlation in correlations]))


def measure_cycle(model: Translator, seed: int, scans: UnpairedScans) -> dict[str, float]:
    """What a model hides in its translations.

    Args:
        model: anything with `translate(images, to)`.
        seed: of the patients with a strong receive field.
        scans: the test patients.

    Returns:
        "honesty": of CT to MR to CT and of MR to CT to MR, see `faithfulness.honesty_ratio`;
        "bias through the cycle": mean `bias_correlation` of MR to CT to MR, on test patients with a
        receive field of 40 %;
        "bias from true CT": the same of the MR from the true CT, which cannot know the field.
    """

    to_ct = partial(model.translate, to="ct")
    to_mri = partial(model.translate, to="mri")
    test = scans.test
    head = torch.from_numpy(mri_head_mask(test.mri[:, 0].numpy()))[:, None]
    honesty = faithfulness.honesty_ratio(to_ct, to_mri, test.mri, test.ct, head)

    n, size = len(test.mri), test.mri.shape[-1]
    strong = phantom_scans(1, n, size, seed, bias_percent=STRONG_FIELD_PERCENT)
    through_cycle = to_mri(to_ct(strong.test.mri))
    from_true_ct = to_mri(strong.test.ct)
    return {
        "honesty": honesty,
        "bias through the cycle": float(np.mean(field_correlations(through_cycle, strong))),
        "bias from true CT": float(np.mean(field_correlations(from_true_ct, strong))),
    }


def field_correlations(mri: torch.Tensor, scans: UnpairedScans) -> list[float]:
    """`bias_correlation` with every test patient's own receive field.

    Args:
        mri: (N, 1, H, W) in [-1, 1], an MR of each test patient.
        scans: with the truth of the test patients.
    """
    truth = scans.test.truth
    brain = np.isin(truth.labels, BRAIN)

    correlations = []
    for i, (patient, image) in enumerate(zip(scans.test.mri_patients, mri, strict=True)):
        values = scans.mri_scales[patient].from_network(image[0].numpy())
        correlations.append(
            faithfulness.bias_correlation(values, truth.mri_clean[i], truth.bias_field[i], brain[i])
        )
    return correlations
