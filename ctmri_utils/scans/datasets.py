"""One loader for every data set: embedded scans, phantom, Kaggle, or any folder of slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..machine import data_folder
from ..masks import mri_head_mask
from ..settings import Settings
from ..units import HU, Scale, mri_scale
from .folders import folder_scans
from .kaggle import downloaded
from .phantom import VOLUME_MM, SyntheticPatients, synthetic_patients
from .unpaired import PERCENTILES, Split, UnpairedScans, clipping_notes

# Every other data set is a folder.
NAMED = ("scans", "phantom", "atlas", "heads", "kaggle")
# Where the anatomy of synthetic patients comes from, and the name of the data set.
PHANTOMS = {"formula": "phantom", "atlas": "atlas"}

# Every seventh synthetic head has a fresh bleed, so that the networks have met some.
HEADS_LESIONS = {"lesion": "acute", "lesion_fraction": 0.15}


def load_scans(dataset: str | Path, settings: Settings, seed: int) -> UnpairedScans:
    """Load the data set that a lesson's DATASET names, at the sizes of the settings.

    Args:
        dataset: "scans", the embedded real slices; "phantom", synthetic patients from formulas;
            "atlas", synthetic patients deformed from one head; "heads", the embedded slices and
            patients of the atlas; "kaggle", the downloaded Kaggle set; or the path of a folder with
            trainA, trainB, testA and testB.
        settings: size and number of slices. Synthetic patients are paired in training if the
            sampling is "paired".
        seed: of the synthetic patients.

    Returns:
        The scans.

    Raises:
        ValueError: the name is unknown, or a file or a manifest is bad.
        FileNotFoundError: the folder holds no images, or Kaggle's set was not downloaded.
    """
    if not isinstance(dataset, str | Path):
        raise ValueError(
            f"DATASET={dataset!r} is no text: choose one of {', '.join(NAMED)} or the path of a "
            "folder"
        )
    if dataset == "scans":
        return folder_scans(data_folder() / "scans", settings.scans_size)
    for anatomy, name in PHANTOMS.items():
        if dataset == name:
            return phantom_scans(
                settings.patients,
                settings.test_patients,
                settings.size,
                seed,
                anatomy=anatomy,
                paired=settings.sampling == "paired",
            )
    if dataset == "heads":
        return heads_scans(settings, seed)
    if dataset == "kaggle":
        return folder_scans(downloaded(), settings.scans_size)
    if not Path(dataset).is_dir():
        raise ValueError(
            f"DATASET={str(dataset)!r} is neither one of {', '.join(NAMED)} nor a folder "
            f"that exists (looked for {Path(dataset).resolve()}): choose one of these"
        )
    return folder_scans(Path(dataset), settings.scans_size)


def phantom_scans(
    patients: int,
    test_patients: int,
    size: int,
    seed: int,
    *,
    anatomy: str = "formula",
    paired: bool = False,
    groups: Sequence[dict] = ({}, {}, {}),
    **options,
) -> UnpairedScans:
    """Make a data set of synthetic patients.

    Args:
        patients: number of training CTs, and of training MRs of *other* patients.
        test_patients: number of test patients, each with CT and MR.
        size: pixels per side.
        seed: draws the patients.
        anatomy: of all patients, "formula" or "atlas".
        paired: train on CT and MR of the same patients, with their truth.
        groups: further options of `synthetic_patients` for the training CTs, the training MRs and
            the test patients.
        **options: options of `synthetic_patients` for all.

    Returns:
        The scans.

    Raises:
        ValueError: an argument is out of range.
    """
    ct_options, mri_options, test_options = groups
    options["anatomy"] = anatomy
    with_ct = synthetic_patients(patients, size, 3 * seed, **options, **ct_options)
    with_mri = synthetic_patients(patients, size, 3 * seed + 1, **options, **mri_options)
    for_test = synthetic_patients(test_patients, size, 3 * seed + 2, **options, **test_options)

    scales = _scales_by_name(with_mri) | _scales_by_name(for_test)
    notes = clipping_notes(with_ct.ct_hu, for_test.ct_hu, HU)
    return UnpairedScans(
        name=PHANTOMS[anatomy],
        train=_phantom_split(with_mri if paired else with_ct, with_mri, scales),
        test=_phantom_split(for_test, for_test, scales),
        ct_scale=HU,
        mri_scales=scales,
        spacing_mm=for_test.spacing_mm,
        notes=(*notes, PERCENTILES),
    )


def _patient_names(group: SyntheticPatients) -> tuple[str, ...]:
    patients = enumerate(group.parameters)
    return tuple(f"{PHANTOMS[patient['anatomy']]}-{patient['seed']}-{i}" for i, patient in patients)


def _scales_by_name(group: SyntheticPatients) -> dict[str, Scale]:
    """The MR scale of each patient, found as for real scans: without the true head mask."""
    names = _patient_names(group)
    return {
        name: mri_scale(mri, mri_head_mask(mri)) for name, mri in zip(names, group.mri, strict=True)
    }


def _phantom_split(
    with_ct: SyntheticPatients, with_mri: SyntheticPatients, scales: dict[str, Scale]
) -> Split:
    """CT of one group and MR of another; paired, with truth, if they are the same group."""
    ct_names, mri_names = _patient_names(with_ct), _patient_names(with_mri)
    ct = HU.to_network(with_ct.ct_hu)
    mri = [
        scales[name].to_network(image) for name, image in zip(mri_names, with_mri.mri, strict=True)
    ]
    return Split(
        ct=torch.from_numpy(ct)[:, None].float(),  # (N, 1, H, W)
        mri=torch.from_numpy(np.stack(mri))[:, None].float(),  # (N, 1, H, W)
        ct_names=ct_names,
        mri_names=mri_names,
        ct_patients=ct_names,
        mri_patients=mri_names,
        truth=with_ct if with_ct is with_mri else None,
        paired=with_ct is with_mri,
        positions=(_relative_levels(with_ct), _relative_levels(with_mri)),
    )


def _relative_levels(group: SyntheticPatients) -> tuple[float, ...]:
    """The height of each patient's slice within a volume, 0 to 1."""
    lowest, highest = VOLUME_MM
    return tuple(
        (patient["level_mm"] - lowest) / (highest - lowest) for patient in group.parameters
    )


def heads_scans(settings: Settings, seed: int) -> UnpairedScans:
    """The embedded scans, and as many heads of the atlas with varied MR contrast.

    The real slices are few, so each is repeated until they are as many as the synthetic ones.

    Args:
        settings: `scans_size` pixels per side, and `patients` synthetic ones of each modality.
        seed: of the synthetic patients.

    Returns:
        The scans; the test side is that of the embedded scans alone.

    Raises:
        ValueError: see `folder_scans`.
        FileNotFoundError: the embedded scans or the atlas are missing.
    """
    size = settings.scans_size
    real = folder_scans(data_folder() / "scans", size)
    made = phantom_scans(
        settings.patients,
        settings.test_patients,
        size,
        seed,
        anatomy="atlas",
        mri_contrast="varied",
        fov_mm=real.spacing_mm * size,
        **HEADS_LESIONS,
    )

    note = (
        f"half of what training sees are {settings.patients} synthetic CT and "
        f"{settings.patients} synthetic MR heads, deformed copies of one head; the real slices "
        "are repeated to as many"
    )
    return replace(
        real,
        name="heads",
        train=_mixed(real.train, made.train),
        mri_scales=real.mri_scales | made.mri_scales,
        notes=(*real.notes, note),
    )


def _mixed(real: Split, made: Split) -> Split:
    """All slices of both, the real ones repeated to as many as the others."""
    ct_order = _repeated(len(real.ct), len(made.ct))
    mri_order = _repeated(len(real.mri), len(made.mri))
    return Split(
        ct=torch.cat([real.ct[ct_order], made.ct]),
        mri=torch.cat([real.mri[mri_order], made.mri]),
        ct_names=(*_picked(real.ct_names, ct_order), *made.ct_names),
        mri_names=(*_picked(real.mri_names, mri_order), *made.mri_names),
        ct_patients=(*_picked(real.ct_patients, ct_order), *made.ct_patients),
        mri_patients=(*_picked(real.mri_patients, mri_order), *made.mri_patients),
    )


def _repeated(few: int, many: int) -> Tensor:
    """Indices 0 to few - 1, over and over, `many` in all."""
    return torch.arange(many) % few


def _picked(names: tuple[str, ...], order: Tensor) -> list[str]:
    return [names[i] for i in order.tolist()]
