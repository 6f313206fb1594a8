"""One loader for every data set: embedded scans, phantom, Kaggle, or any folder of slices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..machine import data_folder
from ..masks import mri_head_mask
from ..settings import DATASETS, Settings
from ..units import HU, Scale, mri_scale
from .atlas import head_file
from .folders import folder_scans
from .kaggle import downloaded
from .notes import PERCENTILES, clipping_notes
from .phantom import VOLUME_MM, SyntheticPatients, synthetic_patients
from .unpaired import Split, UnpairedScans

# The options of `synthetic_patients` for each synthetic data set.
PHANTOM_OPTIONS = {name: row["synthetic"] for name, row in DATASETS.items() if "synthetic" in row}


def embedded() -> Path:
    """The folder of the embedded slices."""
    return data_folder() / "scans"


# Finds the folder of each named data set of slices.
SLICE_FOLDERS = {"scans": embedded, "kaggle": downloaded}


def default_phantom() -> str:
    """The phantom by which the lessons judge: "atlas", or "phantom" without data/atlas."""
    return "atlas" if head_file().is_file() else "phantom"


def load_scans(dataset: str | Path, settings: Settings, seed: int) -> UnpairedScans:
    """Load the data set that a lesson's DATASET names, at the sizes of the settings.

    Args:
        dataset: "scans", the embedded real slices; "phantom", synthetic patients from formulas;
            "atlas", synthetic patients deformed from one head; "heads", the same with varied MR
            contrast and bleeds; "kaggle", Kaggle's set, attached or downloaded; or the path of a
            folder with trainA, trainB, testA and testB.
        settings: size and number of slices. Synthetic patients are paired in training if the
            sampling is "paired".
        seed: of the synthetic patients.

    Returns:
        The scans.

    Raises:
        ValueError: the name is unknown, or a file or a manifest is bad.
        FileNotFoundError: the folder holds no images, or Kaggle's set is not there.

    Example:
        >>> from ctmri_utils import load_scans, settings_for
        >>> scans = load_scans("scans", settings_for("ci"), seed=2026)
        >>> scans.train.mri.shape  # 119 slices of two people
        torch.Size([119, 1, 64, 64])
    """
    if not isinstance(dataset, str | Path):
        raise ValueError(
            f"the data set {dataset!r} must be a string: choose {', '.join(DATASETS)}, or the path "
            "of a folder"
        )
    if dataset in PHANTOM_OPTIONS:
        return phantom_scans(
            settings.patients,
            settings.test_patients,
            settings.size,
            seed,
            name=dataset,
            paired=settings.sampling == "paired",
            **PHANTOM_OPTIONS[dataset],
        )

    if dataset in SLICE_FOLDERS:
        folder = SLICE_FOLDERS[dataset]()
    else:
        folder = existing_folder(dataset)
    return folder_scans(folder, settings.scans_size)


def existing_folder(dataset: str | Path) -> Path:
    """The folder that a data set's name means. Raises ValueError if there is none."""
    folder = Path(dataset)
    if not folder.is_dir():
        raise ValueError(
            f"unknown data set {str(dataset)!r}: choose {', '.join(DATASETS)}, or the path of a "
            f"folder (looked for {folder.resolve()})"
        )
    return folder


def phantom_scans(
    patients: int,
    test_patients: int,
    size: int,
    seed: int,
    *,
    name: str = "phantom",
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
        name: of the data set, and the first part of the patients' names.
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
    with_ct = synthetic_patients(patients, size, 3 * seed, **options, **ct_options)
    with_mri = synthetic_patients(patients, size, 3 * seed + 1, **options, **mri_options)
    for_test = synthetic_patients(test_patients, size, 3 * seed + 2, **options, **test_options)

    scales = scales_by_name(with_mri) | scales_by_name(for_test)
    notes = clipping_notes(with_ct.ct_hu, for_test.ct_hu, HU)
    return UnpairedScans(
        name=name,
        train=phantom_split(with_mri if paired else with_ct, with_mri, scales),
        test=phantom_split(for_test, for_test, scales),
        ct_scale=HU,
        mri_scales=scales,
        spacing_mm=for_test.spacing_mm,
        notes=(*notes, PERCENTILES),
    )


def patient_names(group: SyntheticPatients) -> tuple[str, ...]:
    """A name for each patient, the same in every data set that holds it."""
    family = "atlas" if group.parameters[0]["anatomy"] == "atlas" else "phantom"
    patients = enumerate(group.parameters)
    return tuple(f"{family}-{patient['seed']}-{i}" for i, patient in patients)


def scales_by_name(group: SyntheticPatients) -> dict[str, Scale]:
    """The MR scale of each patient, found as for real scans: without the true head mask."""
    names = patient_names(group)
    return {
        name: mri_scale(mri, mri_head_mask(mri)) for name, mri in zip(names, group.mri, strict=True)
    }


def phantom_split(
    with_ct: SyntheticPatients, with_mri: SyntheticPatients, scales: dict[str, Scale]
) -> Split:
    """CT of one group and MR of another; paired, with truth, if they are the same group."""
    ct_names, mri_names = patient_names(with_ct), patient_names(with_mri)
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
        positions=(relative_levels(with_ct), relative_levels(with_mri)),
    )


def relative_levels(group: SyntheticPatients) -> tuple[float, ...]:
    """The height of each patient's slice within a volume, 0 to 1."""
    lowest, highest = VOLUME_MM
    return tuple(
        (patient["level_mm"] - lowest) / (highest - lowest) for patient in group.parameters
    )
