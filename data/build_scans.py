"""Rebuild data/scans: real axial head slices of one CT and one T1-weighted MRI.

The CT is the "Cranium" example of InVesalius, the MRI is Colin27.

    python data/build_scans.py                            # fetches both Debian packages
    python data/build_scans.py --cranium PATH/Cranium.inv3 --colin PATH/ch2.nii.gz

The same inputs and library versions give the same bytes. See data/README.md for what the slices are
and what they cannot show.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import plistlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from ctmri_utils.units import AIR_HU, STORED_HU_OFFSET

# Pixels, rows and columns.
SIZE = 128
# A field of 224 mm: the longer head (Colin, 213 mm) keeps 5 mm on each side.
SPACING_MM = 1.75
# The CT's own slice distance.
SLICE_MM = 1.5
# Samples per output pixel and axis. Their mean is the anti-alias filter.
FINE = 2

# Scalp is above; headrest foam and hair are below.
SKIN_HU = -300.0
# Colin27's background is exactly 0.
SKIN_MR = 15.0
# Stored value = 100 x intensity, so two decimals survive the resampling.
MR_GAIN = 0.01

# Centres of the test bands, as fractions of the stack's height.
TEST_BANDS = (0.14, 0.38, 0.62, 0.86)
# Slices per test band, and slices left out on each side of it.
BAND = 3
GUARD = 1

PACKAGES = {
    "invesalius-examples": "usr/share/doc/invesalius-examples/examples/Cranium.inv3",
    "mricron-data": "usr/share/mricron/templates/ch2.nii.gz",
}
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


# Shape and voxel size (mm) of the expected volumes.
CRANIUM_SHAPE = [108, 256, 256]
CRANIUM_SPACING = [0.9570312, 0.9570312, 1.5]
COLIN_SHAPE = (181, 217, 181)


@dataclass(frozen=True)
class Source:
    """One head, and how to cut it.

    The cut is parallel to the plane through the anterior and the posterior commissure (AC-PC).
    Triples are in the order z, y, x; heights are above the AC.
    """

    modality: str
    patient: str
    # A is CT, B is MRI.
    folder: str
    # (Z, Y, X): z upward, y from back to front, x from the patient's right to left.
    voxels: np.ndarray
    spacing_mm: tuple[float, float, float]
    # Anterior commissure, from the first voxel.
    ac_mm: tuple[float, float, float]
    # Pitch, roll and yaw that bring the AC-PC plane level.
    turn_deg: tuple[float, float, float]
    bottom_mm: float
    top_mm: float
    background: float
    gain: float
    offset: float
    unit: str


def read_cranium(path: Path) -> np.ndarray:
    """Read a project of InVesalius as (108, 256, 256) int16 HU.

    z upward, y from back to front, x as in the DICOM picture: InVesalius turns the rows of an axial
    DICOM picture over and keeps its columns (invesalius/data/imagedata_utils.py).
    """
    with tarfile.open(path) as archive:
        members = {Path(name).name: name for name in archive.getnames()}
        project = plistlib.loads(archive.extractfile(members["main.plist"]).read())
        raw = archive.extractfile(members["matrix.dat"]).read()

    if project["matrix"]["shape"] != CRANIUM_SHAPE or project["spacing"] != CRANIUM_SPACING:
        raise ValueError(
            f"{path} is not the Cranium example of InVesalius 3.1: give the one from the package "
            "invesalius-examples"
        )
    return np.frombuffer(raw, "<i2").reshape(CRANIUM_SHAPE)


def read_colin(path: Path) -> np.ndarray:
    """Read ch2.nii.gz (RAS+, 1 mm) as (181, 217, 181) uint8.

    z upward, y from back to front, x from right to left.
    """
    import nibabel

    image = nibabel.load(path)
    if image.shape != COLIN_SHAPE or nibabel.aff2axcodes(image.affine) != ("R", "A", "S"):
        raise ValueError(
            f"{path} is not MRIcron's ch2 template (181 x 217 x 181, RAS+): give the one from the "
            "package mricron-data"
        )
    return np.asarray(image.dataobj).transpose(2, 1, 0)[:, :, ::-1]


def cranium(path: Path) -> Source:
    """The CT.

    AC and angles were found by laying its brain cavity onto Colin's brain (rigid and three scales,
    Dice 0.98), then rounded.
    """
    return Source(
        modality="ct",
        patient="cranium",
        folder="A",
        voxels=read_cranium(path),
        spacing_mm=(1.5, 0.9570312, 0.9570312),
        ac_mm=(81.5, 120.5, 124.0),
        turn_deg=(-20.0, 1.5, -3.0),
        bottom_mm=-12.0,
        top_mm=69.0,
        background=AIR_HU,
        gain=1.0,
        offset=-float(STORED_HU_OFFSET),
        unit="HU",
    )


def colin(path: Path) -> Source:
    """The MRI, already in MNI space: AC-PC level, the AC at voxel (71, 125, 90)."""
    return Source(
        modality="mri",
        patient="colin27",
        folder="B",
        voxels=read_colin(path),
        spacing_mm=(1.0, 1.0, 1.0),
        ac_mm=(71.0, 125.0, 90.0),
        turn_deg=(0.0, 0.0, 0.0),
        bottom_mm=-12.0,
        top_mm=78.0,
        background=0.0,
        gain=MR_GAIN,
        offset=0.0,
        unit="MR unit",
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


def largest_filled(mask: np.ndarray) -> np.ndarray:
    """Largest connected region of a 2-D mask, its holes filled."""
    regions, count = ndimage.label(mask)
    if count == 0:
        raise ValueError("a slice holds no head at all: the height limits do not fit this volume")
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    return ndimage.binary_fill_holes(regions == sizes.argmax())


def head_only(source: Source, fine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slices (N, H, W) with everything outside the head set to the background, and head masks.

    CT: the head is the largest region above SKIN_HU after an opening that cuts thin bridges to the
    headrest. One sample (0.9 mm) of rim is kept too, so that the skin's partial volume stays. MRI:
    only the outline is needed, because Colin27's background is 0 already.
    """
    threshold = SKIN_HU if source.modality == "ct" else SKIN_MR
    opened = [ndimage.binary_opening(picture > threshold, iterations=2) for picture in fine]
    head = np.stack([largest_filled(mask) for mask in opened])
    if source.modality == "mri":
        return fine, head

    with_rim = np.stack([ndimage.binary_dilation(mask, np.ones((3, 3))) for mask in head])
    return np.where(with_rim, fine, source.background), head


def cut(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Cut the head into slices, with the head in the middle of the stack.

    Returns heights above the lowest slice in mm, (N,), and slices in physical units,
    (N, SIZE, SIZE) float64.
    """
    count = round((source.top_mm - source.bottom_mm) / SLICE_MM) + 1
    fine_z_mm, fine_xy_mm = SLICE_MM / FINE, SPACING_MM / FINE
    lowest = source.bottom_mm - (SLICE_MM - fine_z_mm) / 2
    heights = lowest + np.arange(count * FINE) * fine_z_mm

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
    return np.arange(count) * SLICE_MM, blocks.mean((1, 3, 5))


def splits(count: int) -> list[str]:
    """Assign "train", "test" or "guard" (not written) to each slice of a stack, lowest first.

    The relative heights are the same for every stack.
    """
    roles = ["train"] * count
    for centre in TEST_BANDS:
        first = round(centre * (count - 1)) - BAND // 2
        for k in range(first - GUARD, first + BAND + GUARD):
            roles[k] = "test" if first <= k < first + BAND else "guard"
    return roles


def write(source: Source, out: Path) -> list[dict]:
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
    for z_mm, picture, split in zip(heights, pictures, splits(len(heights)), strict=True):
        if split == "guard":
            continue

        path = out / f"{split}{source.folder}" / f"{source.modality}_z{round(z_mm * 10):04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, optimize=True)
        rows.append(
            {
                "file": path.relative_to(out).as_posix(),
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


def build(sources: list[Source], out: Path) -> None:
    """Write every slice and the manifest.

    Slices of an earlier build are removed first; licences stay.
    """
    for folder in ("trainA", "trainB", "testA", "testB"):
        shutil.rmtree(out / folder, ignore_errors=True)

    rows = [row for source in sources for row in write(source, out)]
    with open(out / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def fetch(package: str, folder: Path) -> Path:
    """Download a Debian package, unpack it (nothing is installed) and find the scan inside."""
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise FileNotFoundError(
                f"{tool} is not on this machine, so {package} cannot be fetched: pass --cranium "
                "and --colin instead"
            )

    done = subprocess.run(
        ["apt-get", "download", package], cwd=folder, capture_output=True, text=True
    )
    archives = sorted(folder.glob(f"{package}_*.deb"))
    if done.returncode != 0 or not archives:
        reason = " ".join(done.stderr.split())[-200:]
        raise FileNotFoundError(
            f"apt-get could not download {package} ({reason}): run apt-get update, or pass "
            "--cranium and --colin"
        )

    subprocess.run(["dpkg", "-x", str(archives[0]), str(folder / package)], check=True)
    return folder / package / PACKAGES[package]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cranium",
        type=Path,
        help="Cranium.inv3 (default: from the Debian package invesalius-examples)",
    )
    parser.add_argument(
        "--colin", type=Path, help="ch2.nii.gz (default: from the Debian package mricron-data)"
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
            ct_path = options.cranium or fetch("invesalius-examples", Path(folder))
            mri_path = options.colin or fetch("mricron-data", Path(folder))
            build([cranium(ct_path), colin(mri_path)], options.out)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
