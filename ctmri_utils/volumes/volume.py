"""Scans with their place in space.

NIfTI in and out, to axial slices as the networks know them, and back onto the scan's own grid.
"""

from __future__ import annotations

import gzip
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from scipy import ndimage, optimize

from ..evaluation.metrics import check_hu
from ..files import replacing
from ..masks import ct_head_mask, mri_head_mask
from ..units import AIR_HU, STORED_HU_OFFSET

# side of the embedded slices, which the networks were trained on
FIELD_MM = 224.0
# below: no density, but a scanner's mark for "not measured"
LOWEST_HU = -float(STORED_HU_OFFSET)
# MR magnitudes are never so negative, CT always holds air
LIKE_CT = -500.0
# 1024 slices of 512 x 512; 1 GB as float32
MOST_VOXELS = 2**28
MOST_HEADER_BYTES = 2**26
# nothing measured is larger
BROKEN = 1e9
SYNTHETIC = "SYNTHETIC {} - NOT FOR CLINICAL USE"
MODALITIES = {"ct": "CT", "mri": "MR"}
NIFTI = (".nii", ".nii.gz")


@dataclass(frozen=True)
class Volume:
    """A scan in its own grid.

    values: (I, J, K) float32, HU for CT, arbitrary units for MR. affine: (4, 4), index (i, j, k) ->
    mm towards the patient's right, front and head (RAS+, as NIfTI); it may be oblique or, after a
    gantry tilt, sheared. modality: "ct" or "mri". notes: a sentence for all that was noticed or
    changed on the way. space: NIfTI's code of the space the millimetres belong to. Raises
    ValueError for another modality, no volume, one that is too large, or an affine that cannot be a
    scan's.
    """

    values: np.ndarray
    affine: np.ndarray
    modality: str
    notes: tuple[str, ...] = ()
    space: int = 1

    def __post_init__(self):
        if self.modality not in MODALITIES:
            raise ValueError(f'modality {self.modality!r} is not known here: choose "ct" or "mri"')
        check_shape(self.values.shape)
        sides = np.linalg.norm(self.affine[:3, :3], axis=0)
        if not (
            np.isfinite(self.affine).all()
            and ((sides > 0.01) & (sides < 100)).all()
            and abs(np.linalg.det(self.affine[:3, :3])) > 0.1 * sides.prod()
            and np.abs(self.affine).max() < 1e5
        ):
            raise ValueError(
                "the position of its voxels in space makes no sense (voxels from 0.01 to 100 mm "
                "are expected, along three directions): export it again from the scanner's files"
            )

    @property
    def background(self) -> float:
        """What surrounds the head: air, or the darkest MR value."""
        return AIR_HU if self.modality == "ct" else float(self.values.min())

    def describe(self) -> str:
        """One line on modality and size, then the notes."""
        sides = " x ".join(f"{side:.2f}" for side in np.linalg.norm(self.affine[:3, :3], axis=0))
        lines = [
            f"{MODALITIES[self.modality]}, {' x '.join(map(str, self.values.shape))} voxels of "
            f"{sides} mm"
        ]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def check_shape(shape: tuple[int, ...]) -> None:
    """Raise ValueError unless it is that of one volume of a size that fits into memory."""
    if len(shape) != 3:
        raise ValueError(
            f"it has {len(shape)} dimensions ({' x '.join(map(str, shape))}), and a volume has 3: "
            "save its time points, echoes or directions as volumes of their own"
        )
    if not 0 < math.prod(shape) <= MOST_VOXELS:
        raise ValueError(
            f"it claims {' x '.join(map(str, shape))} voxels; 1 to {MOST_VOXELS} are read: it is "
            "damaged, or crop it"
        )


def needs(name: str):
    """Import an optional package, or say how to get it."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"this needs {name.partition('.')[0]}: pip install 'ctmri-utils[course]'"
        ) from error


@contextmanager
def unquoted() -> Iterator[None]:
    """Inside the block no warnings, and not a word from pydicom and nibabel.

    They quote what they read, and that can be a name.
    """
    loggers = [logging.getLogger(name) for name in ("pydicom", "nibabel.global")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def cleaned(values: np.ndarray, modality: str | None) -> tuple[np.ndarray, str, list[str]]:
    """Float32 values without what was not measured, the modality, recognised where it is None, and
    notes. May change `values`.

    NaN, infinity and the like become background, CT below -1024 HU becomes -1024. Raises ValueError
    for a CT that is not in HU, and for an MR that looks like one.
    """
    notes, values = [], np.asarray(values, np.float32)
    # NaN too
    broken = ~(np.abs(values) < BROKEN)
    if broken.all():
        raise ValueError("it holds no finite number: export it again")
    values[broken] = values[~broken].min() if broken.any() else 0
    if modality is None:
        modality = "ct" if values.min() <= LIKE_CT else "mri"
        notes.append(
            f"the file does not say what it is; taken for {MODALITIES[modality]}, its values being "
            f"{values.min():.0f} to {values.max():.0f}"
        )
    elif modality == "mri" and values.min() <= LIKE_CT:
        raise ValueError(
            f"its values reach down to {values.min():.0f}, like those of a CT: it is none of MR's "
            "magnitude images"
        )
    if modality == "ct":
        check_hu("CT", values, np.ones(values.shape, bool), brightest=0)
        if below := (values < LOWEST_HU).mean():
            notes.append(
                f"{below:.1%} of the voxels are below {LOWEST_HU:.0f} HU, not measured, and were "
                "set to it"
            )
        np.maximum(values, LOWEST_HU, out=values)
    if broken.any():
        notes.append(
            f"{broken.sum()} voxels are no finite numbers and were set to the smallest value"
        )
    return values, modality, notes


def read_nifti(path: Path, modality: str | None = None) -> Volume:
    """Read one volume from a .nii or .nii.gz file (NIfTI-1 or 2), scl_slope and scl_inter applied.

    modality: "ct" or "mri"; NIfTI does not say it, so None takes what reaches below -500 for CT.
    Raises ValueError, naming the file, if it is damaged, too large, no single volume of real
    numbers or a CT that is not in HU; OSError if it cannot be opened.
    """
    nibabel, path = needs("nibabel"), Path(path)
    try:
        with unquoted(), (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
            image = _bounded_image(nibabel, file)
        header = image.header
        shape = image.shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        shape += (1,) * (3 - len(shape))
        check_shape(shape)
        if image.get_data_dtype().kind not in "iuf":
            raise ValueError(
                "its voxels are colours or complex numbers: save the grey values or the magnitude"
            )
        if header.get_xyzt_units()[0] in ("meter", "micron"):
            raise ValueError(
                f"its lengths are in {header.get_xyzt_units()[0]}s: save it in millimetres"
            )
        # what is too large for float32 is counted by `cleaned`
        with np.errstate(all="ignore"):
            values = image.get_fdata(dtype=np.float32).reshape(shape)
        values, modality, notes = cleaned(values, modality)
        space = int(header["sform_code"]) or int(header["qform_code"])
        if not space:
            notes.append(
                "the file gives no orientation (sform and qform code 0): left, right, top and "
                "bottom are a guess"
            )
        return Volume(values, image.affine, modality, tuple(notes), space if 1 <= space <= 5 else 1)
    except OSError as error:
        if error.errno:
            raise type(error)(
                f"{path} cannot be opened ({error.strerror}): check the path, its permissions and "
                "the disk"
            ) from error
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}): copy or export it again"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:
        # nibabel and zlib raise many kinds on hostile bytes
        raise ValueError(
            f"{path} is damaged or no NIfTI file ({type(error).__name__}): copy or export it again"
        ) from error


def _bounded_image(nibabel, file):
    """The image in an open, perhaps unzipping, file.

    No more is read than its header needs, once that is known to be reasonable.
    """
    # the longer header, NIfTI-2's
    start = file.read(540)
    kinds = [
        kind
        for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image)
        if kind.header_class.may_contain_header(start)
    ]
    if not kinds:
        raise ValueError("it does not begin like a NIfTI file: it is damaged or something else")
    header = kinds[0].header_class(start[: kinds[0].header_class.sizeof_hdr], check=False)
    voxels, offset = math.prod(header.get_data_shape()), float(header["vox_offset"])
    if not (0 < voxels <= MOST_VOXELS and 0 <= offset <= MOST_HEADER_BYTES):
        check_shape(header.get_data_shape())
        raise ValueError("its header is longer than 64 MB: it is damaged")
    length = int(offset) + voxels * header.get_data_dtype().itemsize
    content = bytearray(start)
    # what is claimed is not yet there
    while len(content) < length and (part := file.read(min(length - len(content), 2**24))):
        content += part
    if len(content) < length:
        raise ValueError(f"it ends after {len(content)} of {length} bytes: copy or export it again")
    return kinds[0].from_bytes(bytes(content))


def as_int16(volume: Volume) -> np.ndarray:
    """Whole numbers for a file.

    Raises ValueError if that would lose the image: values beyond int16, or an MR of less than 100
    steps.
    """
    low, high = float(volume.values.min()), float(volume.values.max())
    if low < -32768 or high > 32767 or (volume.modality == "mri" and high - low < 100):
        raise ValueError(
            f"values from {low:.4g} to {high:.4g} do not survive rounding to 16-bit whole numbers: "
            "rescale them first"
        )
    return np.rint(volume.values).astype(np.int16)


def write_nifti(volume: Volume, path: Path) -> None:
    """Write a synthetic volume as int16 with scl_slope 1, its affine, and a description that says
    that it is synthetic.

    The header is a new one, so that no name, comment or extension of a source can come along.
    Raises ValueError for another ending than .nii and .nii.gz, or as `as_int16`; FileExistsError if
    the file exists.
    """
    nibabel, path = needs("nibabel"), Path(path)
    if not path.name.lower().endswith(NIFTI):
        raise ValueError(f"{path} must end in .nii or .nii.gz")
    image = nibabel.Nifti1Image(as_int16(volume), None)
    image.set_sform(volume.affine, code=volume.space)
    turned = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    straight = np.allclose(turned.T @ turned, np.eye(3), atol=1e-4)
    # a qform cannot hold a shear
    image.set_qform(volume.affine if straight else None, code=volume.space if straight else 0)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1, 0)
    image.header["descrip"] = SYNTHETIC.format(MODALITIES[volume.modality])
    with finished(path) as temporary:
        nibabel.save(image, temporary)


@contextmanager
def finished(path: Path) -> Iterator[Path]:
    """As `replacing`, but nothing is ever overwritten: raises FileExistsError if `path` exists.

    An empty folder counts as nothing.
    """
    path = Path(path)
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{path} exists already: delete it, or choose another output")
    with replacing(path) as temporary:
        yield temporary


def resample(
    values: np.ndarray,
    affine: np.ndarray,
    to_affine: np.ndarray,
    shape: tuple[int, int, int],
    background: float,
) -> np.ndarray:
    """The image (I, J, K) on another grid.

    Linear interpolation, after a Gaussian along the axes that get coarser.

    affine, to_affine: (4, 4), index -> mm, of the old and the new grid; shears, as from a gantry
    tilt, are undone with the rest. background: what lies outside. The Gaussian's SD is half the
    excess of the new step over the old, as in skimage's resize.
    """
    # new index -> old index
    mapping = np.linalg.inv(affine) @ to_affine
    old, new = (
        matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0) for matrix in (affine, to_affine)
    )
    # the new axis nearest to each old one
    partner = optimize.linear_sum_assignment(-np.abs(old.T @ new))[1]
    coarser = np.abs(mapping[range(3), partner])
    if (coarser > 1.01).any():
        values = ndimage.gaussian_filter(values, ((coarser - 1) / 2).clip(0), mode="nearest")
    return ndimage.affine_transform(
        values,
        mapping[:3, :3],
        mapping[:3, 3],
        shape,
        order=1,
        mode="grid-constant",
        cval=background,
    )


@dataclass(frozen=True)
class AxialStack:
    """A volume as the networks see it.

    Slices (Z, size, size), lowest first, forehead up, the patient's right on the left.

    values: float32 in the volume's unit; head: bool, the same shape; affine: (4, 4), index (z, y,
    x) -> mm, RAS+; background: the value outside the volume.
    """

    values: np.ndarray
    head: np.ndarray
    affine: np.ndarray
    background: float
    notes: tuple[str, ...] = ()

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distances of slices, rows and columns."""
        return tuple(np.linalg.norm(self.affine[:3, :3], axis=0).tolist())

    def back_onto(self, volume: Volume, values: np.ndarray, background: float) -> np.ndarray:
        """Values (Z, size, size) on this grid -> (I, J, K) on the volume's own.

        `background` outside of this field.
        """
        return resample(values, self.affine, volume.affine, volume.values.shape, background)


def axial(volume: Volume, size: int = 128, spacing_mm: float | None = None) -> AxialStack:
    """Axial slices of size x size pixels, the head in the middle.

    The volume's own axes, turned over where needed, never rotated.

    spacing_mm: pixel size, None for 224 mm / size. The slices lie as far apart as the volume's own
    along the axis nearest to head-foot, so an axial scan is interpolated within its slices only.
    Raises ValueError if there is no head, or `size` does not suit the networks.
    """
    spacing_mm = FIELD_MM / max(size, 1) if spacing_mm is None else spacing_mm
    if size % 4 or size < 32 or not 0.05 <= spacing_mm <= 50:
        raise ValueError(
            f"size {size} and {spacing_mm:g} mm do not suit the networks: choose a multiple of 4 "
            "from 32 on, and mm per pixel"
        )
    # orthogonal axes: the first two stay in their plane, also when tilted
    turn, steps = np.linalg.qr(volume.affine[:3, :3])
    turn, steps = turn * np.sign(np.diag(steps)), np.abs(np.diag(steps))
    # the axis nearest to right-left, back-front, foot-head
    near = optimize.linear_sum_assignment(-np.abs(turn))[1]
    z, y, x = near[2], near[1], near[0]
    # to the head, the back, the patient's left
    axes = turn[:, [z, y, x]] * np.sign([turn[2, z], -turn[1, y], -turn[0, x]])
    step = np.array([steps[z], spacing_mm, spacing_mm])

    corners = np.array(
        np.meshgrid(*([0, n - 1] for n in volume.values.shape), indexing="ij")
    ).reshape(3, 8)
    # mm along the new axes
    along = axes.T @ (volume.affine[:3, :3] @ corners + volume.affine[:3, 3:])
    low, high = along.min(1), along.max(1)
    shape = (
        np.array(
            [
                round((high[0] - low[0]) / step[0]),
                *np.ceil((high[1:] - low[1:]) / spacing_mm - 1e-6),
            ],
            int,
        )
        + 1
    )
    check_shape(tuple(shape.tolist()))
    check_shape((int(shape[0]), size, size))
    # the grid's middle is the volume's
    first = (low + high - (shape - 1) * step) / 2
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes * step, axes @ first

    values = resample(volume.values, volume.affine, affine, tuple(shape), volume.background)
    head = (ct_head_mask if volume.modality == "ct" else mri_head_mask)(values)
    if not head.any():
        raise ValueError(
            "no head was found in it: is the volume empty, or its unit or modality wrong?"
        )
    centre = [
        np.flatnonzero(head.any((0, 2)))[[0, -1]].mean(),
        np.flatnonzero(head.any((0, 1)))[[0, -1]].mean(),
    ]
    corner = [math.floor(middle - (size - 1) / 2) for middle in centre]
    affine[:3, 3] += affine[:3, 1:3] @ corner
    whole = head.sum()
    values, head = (
        _window(array, *corner, size, fill)
        for array, fill in ((values, volume.background), (head, False))
    )
    lost = 1 - head.sum() / whole
    notes = (
        (
            f"{lost:.1%} of the head lies outside the field of {size * spacing_mm:.0f} mm and "
            "becomes background",
        )
        if lost > 1e-3
        else ()
    )
    return AxialStack(values, head, affine, volume.background, notes)


def _window(stack: np.ndarray, top: int, left: int, size: int, fill) -> np.ndarray:
    """Rows top .. top + size and columns left ..

    Left + size of (Z, H, W), `fill` where these lie outside.
    """
    window = np.full((len(stack), size, size), fill, stack.dtype)
    rows, columns = (slice(max(first, 0), max(first + size, 0)) for first in (top, left))
    part = stack[:, rows, columns]
    window[
        :,
        rows.start - top : rows.start - top + part.shape[1],
        columns.start - left : columns.start - left + part.shape[2],
    ] = part
    return window
