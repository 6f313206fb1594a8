"""Slices on disk, or synthetic patients, become one kind of thing.

`UnpairedScans`, tensors ready for training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..files import roomy
from ..machine import data_folder
from ..masks import mri_head_mask
from ..settings import Settings
from ..units import AIR_HU, GREY, HU, Scale, mri_scale
from .checks import check as check
from .kaggle import downloaded
from .phantom import VOLUME_MM, SyntheticPatients, synthetic_patients
from .slices import FOLDERS, UNKNOWN, SliceFile, read_folder, width_mm

# every other data set is a folder
NAMED = ("scans", "phantom", "kaggle")
# values this little below air are noise, not something lost
NOISE_HU = 50
PERCENTILES = (
    "MR is scaled per patient to the 0.5 and 99.5 percentiles inside the head, so that share of it "
    "is clipped"
)


@dataclass(frozen=True)
class Split:
    """The slices of one side of the split.

    ct (N, 1, H, W) and mri (M, 1, H, W): float32 in [-1, 1]; a name and a patient for each slice.
    `truth` is set only where ct[i] and mri[i] are the same slice of the same patient, as in the
    phantom: paired metrics need it. positions: the height of each CT and of each MR slice in what
    was scanned, 0 to 1, or None where it is not known.
    """

    ct: Tensor
    mri: Tensor
    ct_names: tuple[str, ...]
    mri_names: tuple[str, ...]
    ct_patients: tuple[str, ...]
    mri_patients: tuple[str, ...]
    truth: SyntheticPatients | None = None
    positions: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    @property
    def paired(self) -> bool:
        return self.truth is not None

    def for_fit(self) -> dict[str, Any]:
        """What `fit` wants to know of these slices.

        `fit(model, split.ct, split.mri, seed=seed, **split.for_fit(), ...)`.
        """
        return {
            "names": (self.ct_names, self.mri_names),
            "positions": self.positions,
            "paired": self.paired,
        }


@dataclass(frozen=True)
class UnpairedScans:
    """CT and MR slices of different people, split into train and test.

    Nothing downstream asks where they came from.

    ct_scale turns the CT tensors back into its unit (`HU`, or `GREY` for 8-bit pictures);
    mri_scales holds one scale per MR patient. spacing_mm: pixel size (of the CT), None if unknown.
    notes: one sentence for everything that was ignored, resized, clipped or converted on the way.
    """

    name: str
    train: Split
    test: Split
    ct_scale: Scale
    mri_scales: dict[str, Scale]
    spacing_mm: float | None
    notes: tuple[str, ...] = field(default=())

    def describe(self) -> str:
        """A few lines for the reader: counts, patients, size, units and every note."""
        lines = [
            f"{self.name}: {' x '.join(map(str, self.train.ct.shape[-2:]))} pixels"
            + (f" of {self.spacing_mm:.2f} mm" if self.spacing_mm else " of unknown size")
            + f", CT in {self.ct_scale.unit}"
        ]
        for side, split in (("train", self.train), ("test", self.test)):
            counts = [
                f"{len(images)} {modality} slices of "
                f"{len(set(patients)) if UNKNOWN not in patients else 'unknown'} patient(s)"
                for modality, images, patients in (
                    ("CT", split.ct, split.ct_patients),
                    ("MR", split.mri, split.mri_patients),
                )
            ]
            lines.append(
                f"  {side}: {', '.join(counts)}"
                + ("; paired, with truth" if split.paired else "; unpaired")
            )
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def load_scans(dataset: str | Path, settings: Settings, seed: int) -> UnpairedScans:
    """The data set that a lesson's DATASET names, at the sizes of the settings.

    "scans": the embedded real slices; "phantom": synthetic patients, drawn from `seed`, with pairs
    for training if the settings' sampling is "paired"; "kaggle": the downloaded Kaggle set; or the
    path of a folder that holds trainA, trainB, testA and testB. Raises ValueError or
    FileNotFoundError, in one sentence, for anything else.
    """
    if not isinstance(dataset, str | Path):
        raise ValueError(
            f'DATASET={dataset!r} is no text: choose "scans", "phantom", "kaggle" or the path of a '
            "folder"
        )
    if dataset == "scans":
        return folder_scans(data_folder() / "scans", settings.scans_size)
    if dataset == "phantom":
        return phantom_scans(
            settings.patients,
            settings.test_patients,
            settings.size,
            seed,
            paired=settings.sampling == "paired",
        )
    if dataset == "kaggle":
        return folder_scans(downloaded(), settings.scans_size)
    if not Path(dataset).is_dir():
        raise ValueError(
            f'DATASET={str(dataset)!r} is neither "scans", "phantom", "kaggle" nor a folder that '
            "exists "
            f"(looked for {Path(dataset).resolve()}): choose one of these"
        )
    return folder_scans(Path(dataset), settings.scans_size)


def phantom_scans(
    patients: int,
    test_patients: int,
    size: int,
    seed: int,
    *,
    paired: bool = False,
    groups: Sequence[dict] = ({}, {}, {}),
    **options,
) -> UnpairedScans:
    """Synthetic patients: `patients` CTs, as many MRs of *other* patients, and `test_patients` with
    both; see `synthetic_patients`.

    paired: train on both scans of those whose MR it would have been, with their truth. `options`
    hold for all; groups: further ones for the training CTs, the training MRs and the test patients.
    """
    groups = [
        synthetic_patients(n, size, 3 * seed + part, **options, **own)
        for part, (n, own) in enumerate(
            zip((patients, patients, test_patients), groups, strict=True)
        )
    ]
    names = [
        tuple(f"phantom-{3 * seed + part}-{i}" for i in range(len(group.mri)))
        for part, group in enumerate(groups)
    ]
    scales = {
        name: mri_scale(mri, mri_head_mask(mri))
        for names, group in zip(names[1:], groups[1:], strict=True)
        # the input's own mask, not the truth's
        for name, mri in zip(names, group.mri, strict=True)
    }

    def split(ct_part: int, mri_part: int) -> Split:
        for_ct, for_mri = groups[ct_part], groups[mri_part]
        mri = [
            scales[name].to_network(slice_)
            for name, slice_ in zip(names[mri_part], for_mri.mri, strict=True)
        ]
        heights = [
            tuple(
                (p["level_mm"] - VOLUME_MM[0]) / (VOLUME_MM[1] - VOLUME_MM[0])
                for p in group.parameters
            )
            for group in (for_ct, for_mri)
        ]
        return Split(
            torch.from_numpy(HU.to_network(for_ct.ct_hu))[:, None].float(),
            torch.from_numpy(np.stack(mri))[:, None].float(),
            names[ct_part],
            names[mri_part],
            names[ct_part],
            names[mri_part],
            truth=for_ct if ct_part == mri_part else None,
            positions=(heights[0], heights[1]),
        )

    train, test = split(1 if paired else 0, 1), split(2, 2)
    return UnpairedScans(
        "phantom",
        train,
        test,
        HU,
        scales,
        test.truth.spacing_mm,
        (*clipping_notes(groups[0].ct_hu, test.truth.ct_hu, HU), PERCENTILES),
    )


def clipping_notes(train: np.ndarray, test: np.ndarray, scale: Scale) -> tuple[str, ...]:
    """Say how much of the CT (train and test, in the scale's unit) lies outside its scale.

    HU down to 50 below air count as noise.
    """
    # resizing may leave a rounding error beyond the extreme values
    margin = 1e-3
    lowest = scale.low - (NOISE_HU if scale == HU else margin)
    notes = []
    for where, end, lost in (
        (f"above {scale.high:g}", scale.high, lambda ct: ct > scale.high + margin),
        (f"below {round(lowest)}", scale.low, lambda ct: ct < lowest),
    ):
        shares = [float(np.mean([lost(slice_).mean() for slice_ in ct])) for ct in (train, test)]
        if any(shares):
            train_share, test_share = (f"{100 * share:.2g}%" for share in shares)
            notes.append(
                f"{train_share} of the CT's pixels in train and {test_share} in test lie {where} "
                f"{scale.unit} and are clipped to {end:g}"
            )
    return tuple(notes)


def _to_size(file: SliceFile, size: int) -> Tensor:
    """(H, W) -> (1, size, size) by area-aware interpolation, after padding the shorter side with
    background to a square.
    """
    image = torch.from_numpy(file.pixels)[None, None]  # (1, 1, H, W)
    height, width = image.shape[-2:]
    background = AIR_HU if file.unit == HU.unit else float(image.min())
    extra_h, extra_w = max(width - height, 0), max(height - width, 0)
    image = F.pad(
        image,
        (extra_w // 2, extra_w - extra_w // 2, extra_h // 2, extra_h - extra_h // 2),
        value=background,
    )
    if image.shape[-1] != size:
        image = F.interpolate(
            image, (size, size), mode="bilinear", antialias=True, align_corners=False
        )
    return image[0]


def folder_scans(folder: Path, size: int) -> UnpairedScans:
    """Read trainA (CT), trainB (MR), testA and testB.

    8-bit grey, or 16-bit with a manifest.csv that gives unit, gain and offset.

    Returns tensors of `size` x `size` pixels, large ones on disk, see `roomy`; `size` must be
    divisible by 4. Missing or empty folders raise FileNotFoundError; bad files and manifests
    ValueError, see `read_slice` and `read_manifest`. What is ignored, resized, padded, converted,
    clipped or doubled is counted in `notes`.
    """
    if size % 4 or size < 32:
        raise ValueError(
            f"size={size} does not suit the networks: choose a multiple of 4, at least 32"
        )
    # (N, 1, size, size) each
    images: dict[tuple[str, str], Tensor] = {}

    def take(file: SliceFile, key: tuple[str, str], k: int, count: int) -> None:
        if key not in images:
            images[key] = roomy((count, 1, size, size), torch.float32)
        images[key][k] = _to_size(file, size)

    files, ignored = read_folder(folder, take)
    ct_unit = files["train", "ct"][0].unit
    ct_scale = HU if ct_unit == HU.unit else GREY
    scales = _mri_scales({key: (files[key], images[key]) for key in FOLDERS if key[1] == "mri"})
    notes = _notes(files, ignored, size) + clipping_notes(
        images["train", "ct"].numpy(), images["test", "ct"].numpy(), ct_scale
    )
    if files["train", "mri"][0].unit != GREY.unit:
        notes += (PERCENTILES,)
    for key, group in files.items():
        # in place: there may be room for one copy only
        for file, image in zip(group, images[key], strict=True):
            image.copy_((ct_scale if key[1] == "ct" else scales[file.patient]).to_network(image))

    def split(side: str) -> Split:
        ct, mri = files[side, "ct"], files[side, "mri"]
        heights = [
            _heights(files[side, modality], files["train", modality] + files["test", modality])
            for modality in ("ct", "mri")
        ]
        return Split(
            images[side, "ct"],
            images[side, "mri"],
            tuple(f.path.stem for f in ct),
            tuple(f.path.stem for f in mri),
            tuple(f.patient for f in ct),
            tuple(f.patient for f in mri),
            positions=(heights[0], heights[1]) if all(heights) else None,
        )

    width = width_mm(files["train", "ct"][0])
    return UnpairedScans(
        folder.name, split("train"), split("test"), ct_scale, scales, width and width / size, notes
    )


def _heights(files: list[SliceFile], everything: list[SliceFile]) -> tuple[float, ...]:
    """The height of each slice between its patient's lowest and highest of `everything`, 0 to 1.

    () if one of them is not known.
    """
    known: dict[str, list[float]] = {}
    for file in everything:
        if file.z_mm is None or file.patient == UNKNOWN:
            return ()
        known.setdefault(file.patient, []).append(file.z_mm)
    if any(max(heights) == min(heights) for heights in known.values()):
        return ()
    return tuple(
        (file.z_mm - min(heights)) / (max(heights) - min(heights))
        for file in files
        for heights in [known[file.patient]]
    )


def _mri_scales(groups: dict[tuple[str, str], tuple[list[SliceFile], Tensor]]) -> dict[str, Scale]:
    """One scale per MR patient, over all slices of that patient.

    8-bit pictures keep 0 to 255, which is all that is known of them.
    """
    by_patient: dict[str, list[np.ndarray]] = {}
    for files, images in groups.values():
        for file, image in zip(files, images, strict=True):
            by_patient.setdefault(file.patient, []).append(image[0].numpy())
    if next(iter(groups.values()))[0][0].unit == GREY.unit:
        return dict.fromkeys(by_patient, GREY)
    return {
        patient: mri_scale(volume := np.stack(slices), mri_head_mask(volume))
        for patient, slices in by_patient.items()
    }


def _notes(
    files: dict[tuple[str, str], list[SliceFile]], ignored: list[str], size: int
) -> tuple[str, ...]:
    notes, everything = [], [file for group in files.values() for file in group]
    if ignored:
        notes.append(
            f"{len(ignored)} file(s) with other endings were ignored "
            f"({', '.join(sorted(set(ignored)))})"
        )
    for (height, width), count in sorted(Counter(file.shape for file in everything).items()):
        if (height, width) != (size, size):
            padded = "" if height == width else "padded to a square and "
            notes.append(
                f"{count} slice(s) of {height}x{width} pixels were {padded}resized to {size}x{size}"
            )
    for conversion, count in sorted(
        Counter(file.conversion for file in everything if file.conversion).items()
    ):
        notes.append(f"{count} file(s) hold {conversion}")
    ct_mm = width_mm(files["train", "ct"][0])
    mri_mm = {
        width
        for side in ("train", "test")
        for file in files[side, "mri"]
        if (width := width_mm(file))
    }
    if ct_mm and any(abs(width / ct_mm - 1) > 0.01 for width in mri_mm):
        widths = " to ".join(f"{width:.0f}" for width in sorted({min(mri_mm), max(mri_mm)}))
        notes.append(
            f"CT slices are {ct_mm:.0f} mm wide and MR slices {widths} mm, so heads differ in "
            "size; the pixel size given is the CT's"
        )
    for modality in ("ct", "mri"):
        both = {file.patient for file in files["train", modality]} & {
            file.patient for file in files["test", modality]
        } - {UNKNOWN}
        if both:
            notes.append(
                f"{', '.join(sorted(both))}: in train and in test, so scores say nothing about "
                "other people"
            )
        train = {file.digest: file.path.name for file in files["train", modality]}
        if twins := [file.path.name for file in files["test", modality] if file.digest in train]:
            few = ", ".join(twins[:3] + ["..."] * (len(twins) > 3))
            notes.append(
                f"{len(twins)} test slice(s) also lie in train ({few}): scores on them mean nothing"
            )
    return tuple(notes)
