"""Scans on disk, as NIfTI, MetaImage, NRRD or DICOM: finding, reading and writing them."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from .. import discovery
from ..files import read_start
from ..patients import Evidence
from ..units import MODALITIES, other_modality
from .dicom import list_series, read_series
from .dicom_files import read_file, tag_text
from .dicom_write import write_series
from .itk import HEADER_BYTES, data_file, read_itk, write_itk
from .nifti import read_nifti, write_nifti
from .volume import Volume, quiet_readers

# Files with these endings hold one volume each.
VOLUME_FILES = discovery.NIFTI + discovery.ITK


@dataclass(frozen=True)
class Scan:
    """One volume on disk.

    Args:
        files: one file of `VOLUME_FILES`, or the files of a DICOM series.
        name: what its translation may be called.
        synthetic: whether this package made it, as a translation.
    """

    files: tuple[Path, ...]
    name: str
    synthetic: bool = False

    @property
    def is_file(self) -> bool:
        """Whether it is one file that holds a volume, not a DICOM series."""
        return is_volume_file(self.name)

    @property
    def source(self) -> str:
        """Its file, or the first file of a series and how many more there are."""
        if len(self.files) == 1:
            return str(self.files[0])
        return f"{self.files[0]} and {len(self.files) - 1} more"

    @property
    def location(self) -> Path:
        """Its file, or the folder of a series."""
        return self.files[0] if self.is_file else self.files[0].parent

    @property
    def modality_in_name(self) -> str:
        """What a file is called: "ct", "mri", "other", or "" if its name does not say."""
        return discovery.named_modality(self.files[0].name) if self.is_file else ""

    def read(self, modality: str | None = None, labels: bool = False) -> Volume:
        """Read the volume.

        Args:
            modality: "ct" or "mri"; None takes what the file says, or what its values look like.
            labels: read a mask or label map too.

        Raises:
            ValueError: as `read_nifti`, `read_itk` and `read_series`, a DICOM series or a
                translation of another modality, or a mask or label map.
        """
        if self.is_file:
            self._check_label(modality)
            read = read_itk if self.name.lower().endswith(discovery.ITK) else read_nifti
            return read(self.files[0], modality, labels=labels)

        volume = read_series(self.files)
        if modality not in (None, volume.modality):
            raise ValueError(
                f"{self.files[0].parent}: it is a series of {MODALITIES[volume.modality]}, not of "
                f"{MODALITIES[modality]}"
            )
        return volume

    def _check_label(self, modality: str | None) -> None:
        """Raise ValueError for a translation that says it is of another modality."""
        if modality is None:
            return
        expected, opposite = MODALITIES[modality], MODALITIES[other_modality(modality)]
        if discovery.own_label(self.files[0]) == discovery.SYNTHETIC_LABEL.format(opposite):
            raise ValueError(
                f"{self.files[0]}: its header says that it is a synthetic {opposite}, not a "
                f"{expected}: give the {expected}"
            )


@dataclass(frozen=True)
class ScanListing:
    """The scans of a file or folder.

    Args:
        source: the file or folder.
        scans: real ones first, then translations, each by path.
        left_out: how many files are no scans, by reason.
    """

    source: Path
    scans: tuple[Scan, ...]
    left_out: Counter

    def select(self, modality: str | None, round_trip: bool) -> tuple[list[Scan], list[str]]:
        """Select the scans to work on. Returns them, and notes on what is left out.

        Args:
            modality: "ct" or "mri" leaves out files that are named as another modality, unless all
                are; None takes both.
            round_trip: take translations too.

        Raises:
            FileNotFoundError: there is no such scan; says what was found instead.
        """
        left_out = Counter(self.left_out)
        scans = list(self.scans)
        if not round_trip:
            scans = [scan for scan in self.scans if not scan.synthetic]
            left_out[discovery.TRANSLATED] = sum(
                len(scan.files) for scan in self.scans if scan.synthetic
            )

        of_modality = [scan for scan in scans if scan.modality_in_name in ("", modality)]
        if modality and of_modality:
            left_out[discovery.OTHER_MODALITY] = len(scans) - len(of_modality)
            scans = of_modality

        notes = discovery.left_out_notes(+left_out)
        advice = "give another file or folder"
        if left_out[discovery.TRANSLATED]:
            advice = "give real scans, because only `translate --round-trip` takes translations"
        if not scans:
            instead = "".join(f"; {note}" for note in notes)
            raise FileNotFoundError(
                f"{discovery.printable(self.source)} holds no scan (looked for "
                f"{', '.join(VOLUME_FILES)}, and CT or MR images in DICOM{instead}): {advice}"
            )
        return scans, notes


def list_scans(source: Path) -> ScanListing:
    """Find every volume in a file, and every CT or MR series, in a file or folder.

    Files are found as `discovery` says. A file of one volume keeps its name. A series is series-001
    and so on, because folders are often called by the patient's name.

    Raises:
        FileNotFoundError: the source does not exist.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(
            f"{source} does not exist: give a NIfTI, .mha or DICOM file, or a folder of them"
        )
    folder = source if source.is_dir() else source.parent
    listing = discovery.list_files(source)
    left_out = Counter(listing.left_out)

    scans, dicom = [], []
    for path in without_voxel_files(listing.files):
        reason = reason_to_leave_out(path, path.relative_to(folder).parts, path == source)
        if reason:
            left_out[reason] += 1
        elif is_volume_file(path):
            scans.append(scan_of_file(path, folder))
        else:
            dicom.append(path)

    series, other_objects = list_series(dicom)
    for k, (files, synthetic) in enumerate(series.items(), start=1):
        scans.append(Scan(files, f"series-{k:03d}", synthetic))
    real_first = sorted(scans, key=lambda scan: scan.synthetic)
    return ScanListing(source, tuple(real_first), left_out + other_objects)


def reason_to_leave_out(path: Path, parts: tuple[str, ...], is_source: bool) -> str:
    """Why a file is no scan, "" if it may be one; its parts are the path below the source."""
    if is_volume_file(path):
        if discovery.is_named_as_labels(parts) and not is_source:
            return discovery.LABELS
        is_named = discovery.is_named_as_error_map(path.name)
        if is_named or discovery.labels_error_map(discovery.own_label(path)):
            return discovery.ERROR_MAP
        return ""
    try:
        return "" if discovery.is_dicom(path) else discovery.ending(path)
    except OSError:
        return discovery.LOCKED


def list_masks(source: Path) -> list[Scan]:
    """The files of one volume in a folder that are named as masks; of a file, the file itself.

    If no file of the folder is named as a mask, all of them.

    Raises:
        FileNotFoundError: there is no such file.
    """
    source = Path(source)
    if source.is_file():
        return [scan_of_file(source, source.parent)]
    volumes = [path for path in discovery.list_files(source).files if is_volume_file(path)]
    if not volumes:
        raise FileNotFoundError(
            f"{discovery.printable(source)} holds no mask (looked for {', '.join(VOLUME_FILES)}): "
            "give another file or folder"
        )
    masks = [path for path in volumes if "mask" in discovery.words_of(path.name)]
    return [scan_of_file(path, source) for path in masks or volumes]


def is_volume_file(path: str | Path) -> bool:
    """Whether a file holds one volume, by its ending."""
    return str(path).lower().endswith(VOLUME_FILES)


def scan_of_file(path: Path, folder: Path) -> Scan:
    """The scan in a file of one volume, called by its path below the folder."""
    return Scan((path,), path.relative_to(folder).as_posix(), bool(discovery.own_label(path)))


def without_voxel_files(files: tuple[Path, ...]) -> list[Path]:
    """The files but those that hold the voxels of .mhd files, which are not scans of their own."""
    voxels = set()
    for path in files:
        if path.suffix.lower() == ".mhd" and os.access(path, os.R_OK):
            voxels.add(data_file(path, read_start(path, HEADER_BYTES)))
    return [path for path in files if path not in voxels]


def evidence(scan: Scan, source: Path) -> Evidence:
    """What is known of the patient in a scan, for comparison only; it is never written.

    Args:
        scan: the scan.
        source: the file or folder in which it was found.
    """
    folder = source if source.is_dir() else source.parent
    parts = scan.files[0].relative_to(folder).parts
    if scan.is_file:
        return Evidence(parts, source=source)

    of_series = Evidence(parts[:-1], has_file_name=False, source=source)
    try:
        with quiet_readers():
            header = read_file(scan.files[0], pixels=False)
    except ValueError:
        # Reading the scan will say what is wrong with it.
        return of_series
    return replace(
        of_series,
        patient_id=tag_text(header, "PatientID"),
        name_and_birth=(tag_text(header, "PatientName"), tag_text(header, "PatientBirthDate")),
        study=tag_text(header, "StudyInstanceUID"),
    )


def find_scans(source: Path, round_trip: bool = True) -> list[Scan]:
    """Every scan in a file or folder, see `list_scans`.

    Args:
        source: a file or a folder.
        round_trip: also what this package translated itself.

    Raises:
        FileNotFoundError: there is nothing to read; says what was found instead.
    """
    scans, _ = list_scans(source).select(None, round_trip)
    return scans


def read_volume(path: Path, modality: str | None = None) -> Volume:
    """Read one scan, whichever kind of file it is.

    Args:
        path: a NIfTI, .mha, .mhd, .nrrd or DICOM file, or a folder that holds one scan.
        modality: "ct" or "mri"; None takes what the file says, or what its values look like.

    Raises:
        FileNotFoundError: there is no scan.
        ValueError: there are several scans, or the scan cannot be read, see `Scan.read`.

    Example:
        >>> import numpy as np
        >>> from ctmri_utils import Volume, read_volume, synthetic_patients, volumes
        >>> patient = synthetic_patients(1, seed=2026, slices=12)  # 5 mm apart
        >>> affine = np.diag([-3.4, -3.4, 5.0, 1.0])
        >>> mri = Volume(patient.mri[0].T, affine, "mri")
        >>> volumes.write_nifti(mri, "mri.nii.gz")
        >>> read_volume("mri.nii.gz").values.shape
        (64, 64, 12)
    """
    scans = find_scans(path)
    if len(scans) > 1:
        raise ValueError(
            f"{path} holds {len(scans)} scans: give the file or folder of one, or read each that "
            "`find_scans` finds"
        )
    return scans[0].read(modality, labels=True)


def write_volume(volume: Volume, path: Path) -> None:
    """Write NIfTI, MetaImage or NRRD by the ending of the path, else a folder of DICOM.

    The errors are those of `write_nifti`, `write_itk` and `write_series`.
    """
    if path.name.lower().endswith(discovery.NIFTI):
        write_nifti(volume, path)
    elif path.name.lower().endswith(discovery.ITK):
        write_itk(volume, path)
    else:
        write_series(volume, path)
