"""Slices on disk, or synthetic patients, become one kind of thing: `UnpairedScans`, tensors ready for training."""
from __future__ import annotations

import csv
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .masks import mri_head_mask
from .phantom import SyntheticPatients, synthetic_patients
from .settings import Settings, data_folder
from .units import AIR_HU, GREY, HU, Scale, mri_scale

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
FOLDERS = {("train", "ct"): "trainA", ("train", "mri"): "trainB", ("test", "ct"): "testA", ("test", "mri"): "testB"}
KAGGLE = "darren2020/ct-to-mri-cgan"
UNKNOWN = "unknown"                                              # the patient of a file that no manifest explains


@dataclass(frozen=True)
class Split:
    """The slices of one side of the split.

    ct (N, 1, H, W) and mri (M, 1, H, W): float32 in [-1, 1]; a name and a patient for each slice. `truth` is set only where ct[i] and
    mri[i] are the same slice of the same patient, as in the phantom: paired metrics need it.
    """

    ct: Tensor
    mri: Tensor
    ct_names: tuple[str, ...]
    mri_names: tuple[str, ...]
    ct_patients: tuple[str, ...]
    mri_patients: tuple[str, ...]
    truth: SyntheticPatients | None = None

    @property
    def paired(self) -> bool:
        return self.truth is not None


@dataclass(frozen=True)
class UnpairedScans:
    """CT and MR slices of different people, split into train and test; nothing downstream asks where they came from.

    ct_scale turns the CT tensors back into its unit (`HU`, or `GREY` for 8-bit pictures); mri_scales holds one scale per MR patient.
    spacing_mm: pixel size, None if unknown. notes: one sentence for everything that was resized, clipped or converted on the way.
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
        lines = [f"{self.name}: {' x '.join(map(str, self.train.ct.shape[-2:]))} pixels"
                 + (f" of {self.spacing_mm:.2f} mm" if self.spacing_mm else " of unknown size") + f", CT in {self.ct_scale.unit}"]
        for side, split in (("train", self.train), ("test", self.test)):
            counts = [f"{len(images)} {modality} slices of {len(set(patients)) if UNKNOWN not in patients else 'unknown'} patient(s)"
                      for modality, images, patients in (("CT", split.ct, split.ct_patients), ("MR", split.mri, split.mri_patients))]
            lines.append(f"  {side}: {', '.join(counts)}" + ("; paired, with truth" if split.paired else "; unpaired"))
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def load_scans(dataset: str | Path, settings: Settings, seed: int) -> UnpairedScans:
    """The data set that a lesson's DATASET names, at the sizes of the settings.

    "scans": the embedded real slices; "phantom": synthetic patients, drawn from `seed`; "kaggle": the downloaded Kaggle set; or the path of
    a folder that holds trainA, trainB, testA and testB. Raises ValueError or FileNotFoundError, in one sentence, for anything else.
    """
    if dataset == "scans":
        return folder_scans(data_folder() / "scans", settings.scans_size)
    if dataset == "phantom":
        return phantom_scans(settings.patients, settings.test_patients, settings.size, seed)
    if dataset == "kaggle":
        folder = data_folder() / "kaggle" / "Dataset" / "images"
        if not folder.is_dir():
            where, command = data_folder().parent, f"kaggle datasets download {KAGGLE} --unzip -p data/kaggle"
            raise FileNotFoundError(f"{folder.relative_to(where)} does not exist in {where.name}: "
                                    f'run `{command}` there, or use DATASET="scans"')
        return folder_scans(folder, settings.scans_size)
    if not Path(dataset).is_dir():
        raise ValueError(f'DATASET={str(dataset)!r} is neither "scans", "phantom", "kaggle" nor a folder that exists: choose one of these')
    return folder_scans(Path(dataset), settings.scans_size)


def phantom_scans(patients: int, test_patients: int, size: int, seed: int, **options) -> UnpairedScans:
    """Synthetic patients: `patients` CTs, as many MRs of *other* patients, and `test_patients` with both; see `synthetic_patients`."""
    groups = [synthetic_patients(n, size, 3 * seed + part, **options) for part, n in enumerate((patients, patients, test_patients))]
    names = [tuple(f"phantom-{3 * seed + part}-{i}" for i in range(len(group.mri))) for part, group in enumerate(groups)]
    scales = {name: mri_scale(mri, mri_head_mask(mri)) for names, group in zip(names[1:], groups[1:], strict=True)
              for name, mri in zip(names, group.mri, strict=True)}                             # the input's own mask, not the truth's

    def ct(group):
        return torch.from_numpy(HU.to_network(group.ct_hu))[:, None].float()

    def mri(group, part):
        scaled = [scales[name].to_network(slice_) for name, slice_ in zip(names[part], group.mri, strict=True)]
        return torch.from_numpy(np.stack(scaled))[:, None].float()

    for_ct, for_mri, both = groups
    train = Split(ct(for_ct), mri(for_mri, 1), names[0], names[1], names[0], names[1])
    test = Split(ct(both), mri(both, 2), names[2], names[2], names[2], names[2], truth=both)
    return UnpairedScans("phantom", train, test, HU, scales, both.spacing_mm, clipping_notes(for_ct.ct_hu, HU))


def clipping_notes(ct: np.ndarray, scale: Scale) -> tuple[str, ...]:
    """Say how much of the CT lies outside its scale; nothing is clipped in silence. Values below air are noise and not counted."""
    above = float((ct > scale.high + 1e-3).mean())               # resizing may leave a rounding error above the highest value
    return (f"{above:.2%} of the CT's pixels lie above {scale.high:g} {scale.unit} and are clipped there",) if above else ()


def read_slice(path: Path) -> tuple[np.ndarray, bool]:
    """One greyscale image file -> (H, W) array as stored, uint8 or uint16, and whether it was grey stored as colour.

    Raises ValueError, naming the file, if it is damaged, holds real colour, or is blank (one value everywhere).
    """
    try:
        with Image.open(path) as image:
            image.load()
            mode = image.mode
            pixels = np.asarray(image.convert("RGB") if mode in ("P", "RGBA", "LA", "1", "CMYK", "YCbCr") else image)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}): it is damaged or no image, so replace or delete it") from error
    if mode in ("F", "I"):
        raise ValueError(f"{path} holds {mode}-mode (32-bit) pixels: save it as 8-bit grey, or as 16-bit with a manifest.csv")
    colour = pixels.ndim == 3
    if colour:
        if (pixels != pixels[..., :1]).any():
            raise ValueError(f"{path} is a colour picture: CT and MR slices are grey, so export it without overlays or colour maps")
        pixels = pixels[..., 0]
    if pixels.min() == pixels.max():
        raise ValueError(f"{path} is blank (every pixel is {pixels.flat[0]}): delete it, instance norm cannot learn from it")
    return pixels, colour


@dataclass(frozen=True)
class _File:
    """A slice as read, in its physical unit."""

    path: Path
    pixels: np.ndarray          # (H, W) float32 in `unit`
    unit: str
    patient: str
    spacing_mm: float | None
    converted: bool
    digest: str


def _read_manifest(folder: Path) -> dict[str, dict[str, str]] | None:
    path = folder / "manifest.csv"
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    needed = {"file", "patient", "unit", "gain", "offset"}
    if not rows or not needed <= rows[0].keys():
        raise ValueError(f"{path} must have the columns {', '.join(sorted(needed))} and at least one row: see data/README.md")
    return {row["file"]: row for row in rows}


def _read_file(path: Path, row: dict[str, str] | None) -> _File:
    pixels, converted = read_slice(path)
    if row is None:
        if pixels.dtype != np.uint8:
            raise ValueError(f"{path} is a 16-bit image and nothing says what its numbers mean: "
                             "add a manifest.csv with unit, gain and offset (see data/README.md), or save it as 8-bit")
        row = {"unit": GREY.unit, "gain": "1", "offset": "0", "patient": UNKNOWN}
    physical = pixels.astype(np.float32) * float(row["gain"]) + float(row["offset"])
    spacing = float(row["spacing_mm"]) if row.get("spacing_mm") else None
    return _File(path, physical, row["unit"], row["patient"], spacing, converted, hashlib.sha256(path.read_bytes()).hexdigest())


def _read_folder(folder: Path, subfolder: str, modality: str, manifest: dict | None) -> list[_File]:
    place = folder / subfolder
    paths = sorted(p for p in place.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES) if place.is_dir() else []
    if not paths:
        what = "CT" if modality == "ct" else "MR"
        raise FileNotFoundError(f'{place} holds no images (looked for {" ".join(IMAGE_SUFFIXES)}): put the {what} slices there, '
                                'or pass DATASET="scans" for the embedded ones')
    files = []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if manifest is not None and name not in manifest:
            raise ValueError(f"{path} is not listed in {folder / 'manifest.csv'}: add its row, or delete the file")
        files.append(_read_file(path, manifest[name] if manifest is not None else None))
    if len(units := {file.unit for file in files}) > 1:
        raise ValueError(f"{place} mixes the units {', '.join(sorted(units))}: one modality needs one unit, so correct manifest.csv")
    return files


def _to_size(file: _File, size: int) -> Tensor:
    """(H, W) -> (1, size, size) by area-aware interpolation, after padding the shorter side with background to a square."""
    image = torch.from_numpy(file.pixels)[None, None]            # (1, 1, H, W)
    height, width = image.shape[-2:]
    background = AIR_HU if file.unit == HU.unit else float(image.min())
    extra_h, extra_w = max(width - height, 0), max(height - width, 0)
    image = F.pad(image, (extra_w // 2, extra_w - extra_w // 2, extra_h // 2, extra_h - extra_h // 2), value=background)
    if image.shape[-1] != size:
        image = F.interpolate(image, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return image[0]


def folder_scans(folder: Path, size: int) -> UnpairedScans:
    """Read trainA (CT), trainB (MR), testA and testB; 8-bit grey, or 16-bit with a manifest.csv that gives unit, gain and offset.

    Returns tensors of `size` x `size` pixels; `size` must be divisible by 4. Missing or empty folders raise FileNotFoundError; damaged,
    coloured, blank, unexplained 16-bit or unlisted files ValueError. What is resized, padded, converted, clipped or doubled is counted
    in `notes`.
    """
    if size % 4 or size < 32:
        raise ValueError(f"size={size} does not suit the networks: choose a multiple of 4, at least 32")
    manifest = _read_manifest(folder)
    files = {key: _read_folder(folder, subfolder, key[1], manifest) for key, subfolder in FOLDERS.items()}
    everything = [file for group in files.values() for file in group]

    images = {key: torch.stack([_to_size(file, size) for file in group]) for key, group in files.items()}     # (N, 1, size, size) each
    ct_unit = files["train", "ct"][0].unit
    ct_scale = HU if ct_unit == HU.unit else GREY
    scales = _mri_scales({key: (files[key], images[key]) for key in FOLDERS if key[1] == "mri"})

    def split(side: str) -> Split:
        ct, mri = files[side, "ct"], files[side, "mri"]
        scaled = torch.stack([scales[file.patient].to_network(image) for file, image in zip(mri, images[side, "mri"], strict=True)])
        return Split(ct_scale.to_network(images[side, "ct"]), scaled, tuple(f.path.stem for f in ct), tuple(f.path.stem for f in mri),
                     tuple(f.patient for f in ct), tuple(f.patient for f in mri))

    notes = _notes(everything, files, size) + clipping_notes(images["train", "ct"].numpy(), ct_scale)
    spacing = everything[0].spacing_mm
    spacing = spacing and spacing * max(everything[0].pixels.shape) / size
    return UnpairedScans(folder.name, split("train"), split("test"), ct_scale, scales, spacing, notes)


def _mri_scales(groups: dict[tuple[str, str], tuple[list[_File], Tensor]]) -> dict[str, Scale]:
    """One scale per MR patient, over all slices of that patient; 8-bit pictures keep 0 to 255, which is all that is known of them."""
    by_patient: dict[str, list[np.ndarray]] = {}
    for files, images in groups.values():
        for file, image in zip(files, images, strict=True):
            by_patient.setdefault(file.patient, []).append(image[0].numpy())
    if next(iter(groups.values()))[0][0].unit == GREY.unit:
        return dict.fromkeys(by_patient, GREY)
    return {patient: mri_scale(volume := np.stack(slices), mri_head_mask(volume)) for patient, slices in by_patient.items()}


def _notes(everything: list[_File], files: dict[tuple[str, str], list[_File]], size: int) -> tuple[str, ...]:
    notes = []
    for (height, width), count in sorted(Counter(file.pixels.shape for file in everything).items()):
        if (height, width) != (size, size):
            padded = "" if height == width else "padded to a square and "
            notes.append(f"{count} slice(s) of {height}x{width} pixels were {padded}resized to {size}x{size}")
    if converted := sum(file.converted for file in everything):
        notes.append(f"{converted} file(s) hold grey stored as colour; one channel was kept")
    for modality in ("ct", "mri"):
        both = {file.patient for file in files["train", modality]} & {file.patient for file in files["test", modality]} - {UNKNOWN}
        if both:
            notes.append(f"{', '.join(sorted(both))}: in train and in test, so scores say nothing about other people")
        train = {file.digest: file.path.name for file in files["train", modality]}
        if twins := [file.path.name for file in files["test", modality] if file.digest in train]:
            few = ", ".join(twins[:3] + ["..."] * (len(twins) > 3))
            notes.append(f"{len(twins)} test slice(s) also lie in train ({few}): scores on them mean nothing")
    return tuple(notes)
