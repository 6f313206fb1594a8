"""DICOM series in and out.

What misleads is refused, and nothing that could hold a patient's name comes along.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from .volume import (
    LOWEST_HU,
    MODALITIES,
    SYNTHETIC,
    Volume,
    as_int16,
    check_shape,
    cleaned,
    finished,
    needs,
    unquoted,
)

# DICOM counts mm to the patient's left and back, we to right and front
RAS = np.diag([-1.0, -1.0, 1.0])
KNOWN = {name: modality for modality, name in MODALITIES.items()}
DEFLATED = b"1.2.840.10008.1.2.1.99"
MOST_FILE_BYTES = 2**28
MOST_SERIES_BYTES = 2**31
# of one slice
MOST_PIXELS = 2**24
# how far off its place a slice may be, in slice distances: rounding
OFF_LINE = 0.2
TILTED_DEG = 0.5
PLUGINS = (
    "install pylibjpeg, pylibjpeg-libjpeg and pylibjpeg-openjpeg by pip, or decompress the files, "
    "e.g. by gdcmconv --raw"
)
MRI_TAGS = {
    "ScanningSequence": "RM",
    "SequenceVariant": "NONE",
    "ScanOptions": "",
    "MRAcquisitionType": "",
    "EchoTime": None,
    "RepetitionTime": None,
    "EchoTrainLength": None,
    # the standard asks for them
}
CT_TAGS = {"RescaleType": "HU", "KVP": None, "AcquisitionNumber": None}


def is_dicom(path: Path) -> bool:
    """Whether this is a file that carries DICOM's mark, DICM after 128 bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_file(path: Path, pixels: bool = True):
    """The pydicom dataset of one file.

    ValueError, naming the file but quoting nothing from it, if it is damaged or too large.
    """
    pydicom = needs("pydicom")
    if path.stat().st_size > MOST_FILE_BYTES:
        raise ValueError(
            f"{path} is larger than {MOST_FILE_BYTES >> 20} MB, so it is no single slice: convert "
            "it to NIfTI first"
        )
    # at once, so that a wrong length inside can claim no memory
    content = path.read_bytes()
    if content[128:132] != b"DICM":
        raise ValueError(f"{path} is no DICOM file, it lacks DICOM's mark: copy or export it again")
    if DEFLATED in content[:1024]:
        raise ValueError(
            f"{path} is deflated as a whole, so its true size is unknown: save it uncompressed, "
            "e.g. by dcmconv +te"
        )
    try:
        return pydicom.dcmread(BytesIO(content), stop_before_pixels=not pixels)
    except Exception as error:
        # of many kinds, and their words may quote a patient's name
        raise ValueError(
            f"{path} is a damaged DICOM file ({type(error).__name__}): copy or export it again"
        ) from None


def text(dataset, keyword: str) -> str:
    """A tag as text, "" if it is missing or broken."""
    try:
        return str(dataset.get(keyword) or "").strip()
    except Exception:
        return ""


def numbers(dataset, keyword: str, count: int) -> np.ndarray:
    """The numbers of a tag, (count,) float64.

    ValueError, naming the tag, if it is missing or broken.
    """
    try:
        values = np.array(dataset[keyword].value, dtype=np.float64).reshape(count)
    except Exception:
        values = np.array(np.nan)
    if not np.isfinite(values).all():
        raise ValueError(f"the tag {keyword} is missing or broken: export the series again")
    return values


def find_series(files: Sequence[Path]) -> list[list[Path]]:
    """The CT and MR images among DICOM files, one list a series, in the order of their first files.

    All other objects are left out, and so are localizers, the overviews on which a scan is planned.
    A damaged file is a series of its own, so that reading it says what is wrong with it; where the
    series is not told, a folder is one.
    """
    series = defaultdict(list)
    with unquoted():
        for path in files:
            try:
                header = read_file(path, pixels=False)
            except ValueError:
                series[path].append(path)
                continue
            if (
                text(header, "Modality") in KNOWN
                and "Rows" in header
                and "LOCALIZER" not in text(header, "ImageType")
            ):
                series[text(header, "SeriesInstanceUID") or path.parent].append(path)
    return list(series.values())


def read_series(source: Path | Sequence[Path]) -> Volume:
    """Read a CT or MR series.

    A folder that holds one, the list of its files, or a single file, which is a volume of one
    slice.

    Slices are sorted by their position, values rescaled once to HU (or as the MR's tags say);
    padding becomes background, a gantry tilt a shear of the affine. Raises ValueError, naming file
    or folder but nothing written in them, for several series, other modalities, slices that differ
    in size or direction, that lie unevenly, double or with one missing, several frames, colour, and
    damage.
    """
    if isinstance(source, Path | str):
        place = Path(source)
        found = (
            find_series([path for path in sorted(place.rglob("*")) if is_dicom(path)])
            if place.is_dir()
            else [[place]]
        )
        if len(found) != 1:
            raise ValueError(
                f"{place} holds {len(found)} CT or MR series "
                f"({', '.join(str(len(files)) for files in found) or 'no'} slices): pass the "
                "folder or the files of one"
            )
        [source] = found
    where = source[0] if len(source) == 1 else source[0].parent
    if sum(path.stat().st_size for path in source) > MOST_SERIES_BYTES:
        raise ValueError(
            f"{where}: its {len(source)} files have more than {MOST_SERIES_BYTES >> 30} GB: pass "
            "the files of one part"
        )
    with unquoted():
        datasets = [read_file(path) for path in source]
        try:
            modality, shape = _common(datasets)
            datasets, affine, notes = _in_place(datasets)
            values = np.empty((len(datasets), *shape), np.float32)
            padding = sum(
                _fill(slice_, dataset) for slice_, dataset in zip(values, datasets, strict=True)
            )
            if (
                text(datasets[0], "PhotometricInterpretation") == "MONOCHROME1"
                and modality == "mri"
            ):
                # HU mean the same however they are shown; MR values are only shown
                values = values.max() + values.min() - values
                notes.append(
                    "stored as a negative (MONOCHROME1) and turned over, so that what shines is "
                    "bright"
                )
            values, _, more = cleaned(values.transpose(2, 1, 0), modality)
            if padding:
                notes.append(
                    f"{padding / values.size:.1%} of the voxels are padding, which is background "
                    "now"
                )
            return Volume(values, affine, modality, (*notes, *more))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None


def _common(datasets: list) -> tuple[str, tuple[int, int]]:
    """The modality, and rows and columns, that all slices share."""
    first = datasets[0]
    modality = text(first, "Modality")
    if modality not in KNOWN:
        raise ValueError("it is neither CT nor MR (by its tag Modality): only these are read")
    for dataset in datasets:
        if text(dataset, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
            raise ValueError(
                "it is a colour picture, or does not say what its pixels are: give the original "
                "images"
            )
        if text(dataset, "NumberOfFrames") not in ("", "1"):
            raise ValueError(
                "it holds several frames (an enhanced or a moving image): convert it to NIfTI "
                "first, e.g. by dcm2niix"
            )
    for keyword in ("Modality", "PhotometricInterpretation", "SeriesInstanceUID", "PatientID"):
        if len({text(dataset, keyword) for dataset in datasets}) > 1:
            raise ValueError(f"its slices differ in {keyword}: pass the files of one series")
    for keyword, count in (
        ("Rows", 1),
        ("Columns", 1),
        ("PixelSpacing", 2),
        ("ImageOrientationPatient", 6),
    ):
        of_first = numbers(first, keyword, count)
        if not all(
            np.allclose(numbers(dataset, keyword, count), of_first, atol=1e-3)
            for dataset in datasets
        ):
            raise ValueError(
                f"its slices differ in {keyword}, as in a localizer: pass the files of one stack"
            )
    rows, columns = (int(numbers(first, keyword, 1)[0]) for keyword in ("Rows", "Columns"))
    if not 0 < rows * columns <= MOST_PIXELS:
        raise ValueError(
            f"it claims slices of {rows} x {columns} pixels, which cannot be right: copy or export "
            "it again"
        )
    check_shape((columns, rows, len(datasets)))
    return KNOWN[modality], (rows, columns)


def _in_place(datasets: list) -> tuple[list, np.ndarray, list[str]]:
    """The slices in their order along the normal, their affine, and notes.

    Source: DICOM PS3.3, C.7.6.2.1.1.
    """
    along_row, along_column = numbers(datasets[0], "ImageOrientationPatient", 6).reshape(2, 3)
    if (
        max(
            abs(along_row @ along_row - 1),
            abs(along_column @ along_column - 1),
            abs(along_row @ along_column),
        )
        > 0.01
    ):
        raise ValueError(
            "its ImageOrientationPatient are no two directions at a right angle: export the series "
            "again"
        )
    normal = np.cross(along_row, along_column)
    positions = np.stack([numbers(dataset, "ImagePositionPatient", 3) for dataset in datasets])
    order = np.argsort(positions @ normal, kind="stable")
    positions, notes, last = positions[order], [], len(datasets) - 1
    try:
        thickness = float(numbers(datasets[0], "SliceThickness", 1)[0])
    except ValueError:
        thickness = 0.0
    step = (positions[-1] - positions[0]) / last if last else normal * (thickness or 1.0)
    if last:
        _check_distances(np.diff(positions @ normal))
        length, off = (
            np.linalg.norm(step),
            np.linalg.norm(
                positions - positions[0] - np.arange(last + 1)[:, None] * step, axis=1
            ).max(),
        )
        tilt = float(np.degrees(np.arccos(np.clip(step @ normal / length, -1, 1))))
        if off > OFF_LINE * length or tilt > 45:
            raise ValueError(
                f"its slices do not lie on one line, one is {off:.1f} mm beside it: pass the files "
                "of one stack"
            )
        if tilt > TILTED_DEG:
            notes.append(
                f"slices are tilted by {tilt:.1f} degrees against the table (gantry tilt); each is "
                "put where it was"
            )
        if 0 < thickness < 0.9 * step @ normal:
            notes.append(
                f"slices of {thickness:g} mm lie {step @ normal:.2f} mm apart: what is between "
                "them was not scanned"
            )
    # distance of rows, then of columns
    height, width = numbers(datasets[0], "PixelSpacing", 2)
    affine = np.eye(4)
    affine[:3] = RAS @ np.column_stack(
        [along_row * width, along_column * height, step, positions[0]]
    )
    return [datasets[i] for i in order], affine, notes


def _check_distances(distances: np.ndarray) -> None:
    """Raise ValueError unless the slices, in order, lie evenly and alone."""
    usual = np.median(distances)
    if distances.min() < 1e-3:
        raise ValueError(
            f"{int((distances < 1e-3).sum())} slices lie where another one lies (echoes, time "
            "points, copies?): pass the files of one volume"
        )
    places = np.concatenate([[0], np.cumsum(distances)])
    if np.abs(places - np.linspace(0, places[-1], len(places))).max() <= OFF_LINE * usual:
        return
    gaps = np.rint(distances / usual)
    if np.allclose(distances, gaps * usual, atol=OFF_LINE * usual):
        where = ", ".join(
            f"{int(gap) - 1} after slice {k + 1}" for k, gap in enumerate(gaps) if gap > 1
        )
        raise ValueError(
            f"slices are missing ({where}, {usual:.2f} mm being usual): export the series again, "
            "complete"
        )
    raise ValueError(
        f"its slices lie {distances.min():.2f} to {distances.max():.2f} mm apart, unevenly: pass "
        "the files of one evenly spaced part, or resample it first"
    )


def _fill(slice_: np.ndarray, dataset) -> int:
    """Decode one slice into (rows, columns) float32, rescaled, padding as background.

    How many pixels are padding.
    """
    from pydicom.pixels import apply_modality_lut, get_decoder

    try:
        syntax = dataset.file_meta.TransferSyntaxUID
        readable, name = get_decoder(syntax).is_available, syntax.name
    except Exception:
        raise ValueError(
            "its transfer syntax is missing or unknown: save it uncompressed"
        ) from None
    if not readable:
        raise ValueError(
            f"its pixels are compressed ({name}), and the plug-in for that is not installed: "
            f"{PLUGINS}"
        )
    try:
        stored = dataset.pixel_array
        slice_[:] = apply_modality_lut(stored, dataset)
        padding = _padding(stored, dataset)
    except Exception as error:
        how = f"; if it is whole, {PLUGINS}" if syntax.is_compressed else ""
        raise ValueError(
            f"the pixels of a slice cannot be decoded ({name}, {type(error).__name__}): copy it "
            f"again{how}"
        ) from None
    if padding.any() and not padding.all():
        darkest = np.max if text(dataset, "PhotometricInterpretation") == "MONOCHROME1" else np.min
        slice_[padding] = (
            LOWEST_HU if text(dataset, "Modality") == "CT" else darkest(slice_[~padding])
        )
    return int(padding.sum())


def _padding(stored: np.ndarray, dataset) -> np.ndarray:
    """Where stored values are padding, bool.

    The tags may count as signed what the pixels count as unsigned.
    """
    if dataset.get("PixelPaddingValue") is None:
        return np.zeros(stored.shape, bool)
    one = int(dataset.PixelPaddingValue)
    other = int(dataset.get("PixelPaddingRangeLimit", one))
    low, span = min(one, other), abs(one - other)
    return (stored.astype(np.int64) - low) % 2 ** int(dataset.BitsAllocated) <= span


def write_series(volume: Volume, folder: Path) -> None:
    """Write a synthetic volume as a series of its own, one file a slice: 0001.dcm, 0002.dcm ...

    In a new folder.

    Every tag is made here, none copied: new UIDs, DERIVED\\SECONDARY, "SYNTHETIC ... NOT FOR
    CLINICAL USE" for the description and the patient's name. Values are int16, HU for CT. Raises
    ValueError as `as_int16`, or if rows and columns are not at a right angle; FileExistsError if
    the folder is not empty.
    """
    pydicom = needs("pydicom")
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
    from pydicom.valuerep import DSfloat

    stored, affine = as_int16(volume), RAS @ volume.affine[:3]
    sides = np.linalg.norm(affine[:, :3], axis=0)
    directions = affine[:, :2] / sides[:2]
    if abs(directions[:, 0] @ directions[:, 1]) > 1e-3:
        raise ValueError(
            "rows and columns are not at a right angle, which DICOM cannot hold: write NIfTI "
            "instead"
        )
    ct = volume.modality == "ct"
    label = SYNTHETIC.format(MODALITIES[volume.modality])

    def decimals(values):
        return [DSfloat(float(value), auto_format=True) for value in values]

    kind = CTImageStorage if ct else MRImageStorage
    study, series, frame = (generate_uid() for _ in range(3))
    with finished(folder) as temporary:
        temporary.mkdir()
        for k in range(stored.shape[2]):
            meta = pydicom.dataset.FileMetaDataset()
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, generate_uid()
            image = pydicom.Dataset()
            image.file_meta = meta
            image.SOPClassUID, image.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
            image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = (
                study,
                series,
                frame,
            )
            image.Modality, image.ImageType = (
                MODALITIES[volume.modality],
                ["DERIVED", "SECONDARY", "AXIAL" if ct else "OTHER"],
            )
            image.PatientName, image.PatientID, image.PatientIdentityRemoved = (
                "SYNTHETIC^NOT FOR CLINICAL USE",
                "SYNTHETIC",
                "YES",
            )
            image.DeidentificationMethod = (
                "written anew: only pixels and geometry come from the source"
            )
            image.SeriesDescription = image.ImageComments = label
            image.DerivationDescription = (
                "Translated by a neural network from another modality; findings may be invented or "
                "lost. " + label
            )
            for keyword in (
                "PatientBirthDate",
                "PatientSex",
                "StudyDate",
                "StudyTime",
                "StudyID",
                "AccessionNumber",
                "ReferringPhysicianName",
                "PositionReferenceIndicator",
            ):
                setattr(image, keyword, "")
            image.Manufacturer, image.SeriesNumber, image.InstanceNumber = "ctmri-utils", 1, k + 1
            for keyword, value in (CT_TAGS if ct else MRI_TAGS).items():
                setattr(image, keyword, value)
            image.ImageOrientationPatient = decimals(directions.T.ravel())
            image.ImagePositionPatient = decimals(affine[:, 2] * k + affine[:, 3])
            image.PixelSpacing = decimals([sides[1], sides[0]])
            image.SliceThickness = image.SpacingBetweenSlices = decimals(
                [abs(np.cross(*directions.T) @ affine[:, 2])]
            )[0]
            image.Rows, image.Columns = stored.shape[1], stored.shape[0]
            image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = (
                1,
                "MONOCHROME2",
                1,
            )
            image.BitsAllocated = image.BitsStored = 16
            image.HighBit = 15
            image.RescaleIntercept, image.RescaleSlope = 0, 1
            image.WindowCenter, image.WindowWidth = (40, 400) if ct else (2048, 4096)
            image.PixelData = np.ascontiguousarray(stored[:, :, k].T).astype("<i2").tobytes()
            image.save_as(temporary / f"{k + 1:04d}.dcm", enforce_file_format=True)
