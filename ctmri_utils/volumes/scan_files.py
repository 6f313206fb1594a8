"""Scans on disk: NIfTI files and DICOM series, found and read alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .dicom import find_series, read_series
from .dicom_files import is_dicom
from .nifti import NIFTI, read_nifti
from .volume import MODALITIES, Volume


@dataclass(frozen=True)
class Scan:
    """One volume on disk.

    Args:
        files: one NIfTI file, or the files of a DICOM series.
        name: what its translation may be called.
    """

    files: tuple[Path, ...]
    name: str

    @property
    def nifti(self) -> bool:
        """Whether it is a NIfTI file, not a DICOM series."""
        return self.name.lower().endswith(NIFTI)

    def read(self, modality: str | None = None) -> Volume:
        """Read the volume.

        Args:
            modality: "ct" or "mri"; None takes what the file says, or what its values look like.

        Raises:
            ValueError: as `read_nifti` and `read_series`, or a DICOM series of another modality.
        """
        if self.nifti:
            return read_nifti(self.files[0], modality)

        volume = read_series(self.files)
        if modality not in (None, volume.modality):
            raise ValueError(
                f"{self.files[0].parent}: it is a series of {MODALITIES[volume.modality]}, not of "
                f"{MODALITIES[modality]}"
            )
        return volume


def find_scans(source: Path) -> list[Scan]:
    """Every NIfTI file and every CT or MR series in a file or folder, hidden files left out.

    A NIfTI file keeps its name. A series is series-001 and so on, because folders are often called
    by the patient's name.

    Raises:
        FileNotFoundError: there is nothing to read.
    """
    source = Path(source)
    folder = source if source.is_dir() else source.parent
    files = _visible_files(source)

    nifti = [path for path in files if path.name.lower().endswith(NIFTI)]
    others = [path for path in files if not path.name.lower().endswith(NIFTI)]
    series = find_series([path for path in others if is_dicom(path)])

    scans = [Scan((path,), path.relative_to(folder).as_posix()) for path in nifti]
    scans += [Scan(tuple(group), f"series-{k:03d}") for k, group in enumerate(series, start=1)]
    if not scans:
        raise FileNotFoundError(
            f"{source} holds no scan (looked for .nii, .nii.gz, and CT or MR images with DICOM's "
            "mark): look elsewhere"
        )
    return scans


def _visible_files(source: Path) -> list[Path]:
    """The file itself, or the files in a folder at any depth, sorted, no name with a dot first."""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise FileNotFoundError(
            f"{source} does not exist: give a NIfTI file, a DICOM file, or a folder of them"
        )

    visible = []
    for path in sorted(source.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
        if path.is_file() and not hidden:
            visible.append(path)
    return visible


def read_volume(path: Path, modality: str | None = None) -> Volume:
    """Read one scan, whichever kind of file it is.

    Args:
        path: a NIfTI file, a DICOM file, or a folder that holds one scan.
        modality: "ct" or "mri"; None takes what the file says, or what its values look like.

    Raises:
        FileNotFoundError: there is no scan.
        ValueError: there are several scans, or the scan cannot be read, see `Scan.read`.
    """
    scans = find_scans(path)
    if len(scans) > 1:
        raise ValueError(
            f"{path} holds {len(scans)} scans: give the file or folder of one, or read each that "
            "`find_scans` finds"
        )
    return scans[0].read(modality)
