"""DICOM series as volumes: sorted, in HU, and refused in one sentence where tags mislead."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..discovery import ERROR_MAP, OTHER_DICOM, is_dicom, labels_error_map, list_files
from ..units import MODALITIES
from .dicom_files import own_label, read_file, tag_numbers, tag_text
from .dicom_geometry import slices_in_place
from .volume import LOWEST_HU, Volume, check_shape, cleaned, quiet_readers

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

MODALITY_OF_TAG = {name: modality for modality, name in MODALITIES.items()}
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MOST_SERIES_BYTES = 2**31
MOST_SLICE_PIXELS = 2**24
PLUGINS = "pip install 'ctmri-utils[volumes]', or decompress the files, e.g. by gdcmconv --raw"


def list_series(files: Sequence[Path]) -> tuple[dict[tuple[Path, ...], bool], Counter]:
    """Sort DICOM files into the CT and MR series that they hold.

    All other objects are left out, and so are localizers, the overviews on which a scan is planned.
    A damaged file is a series of its own, so that reading it says what is wrong with it. Where no
    tag names the series, a folder is one.

    Returns:
        The files of each series, in the order of their first ones, with whether this package
        translated it; and how many files are left out, by reason.
    """
    series, synthetic, left_out = defaultdict(list), set(), Counter()
    with quiet_readers():
        for path in files:
            try:
                header = read_file(path, pixels=False)
            except ValueError:
                series[path].append(path)
                continue

            if not is_slice(header):
                left_out[OTHER_DICOM] += 1
                continue
            label = own_label(header)
            if labels_error_map(label):
                left_out[ERROR_MAP] += 1
                continue

            key = tag_text(header, "SeriesInstanceUID") or path.parent
            series[key].append(path)
            if label:
                synthetic.add(key)
    return {tuple(files): key in synthetic for key, files in series.items()}, left_out


def is_slice(header: Dataset) -> bool:
    """Whether it is a CT or MR image, but no localizer and no picture of a screen."""
    is_image = tag_text(header, "Modality") in MODALITY_OF_TAG and "Rows" in header
    is_localizer = "LOCALIZER" in tag_text(header, "ImageType")

    # Dose reports and screenshots call themselves CT, but have no position in space.
    is_capture = tag_text(header, "SOPClassUID").startswith(SECONDARY_CAPTURE)
    has_position = "ImagePositionPatient" in header
    return is_image and not is_localizer and (has_position or not is_capture)


def read_series(source: Path | Sequence[Path]) -> Volume:
    """Read a CT or MR series.

    Slices are sorted by their position and values rescaled once, to HU or as the MR's tags say.
    Padding becomes background, a gantry tilt a shear of the affine. Slices that lie unevenly stay
    where they are, see `Volume.heights`; exact copies are left out. Both are noted.

    Args:
        source: a folder that holds one series, the list of its files, or a single file, which is a
            volume of one slice.

    Raises:
        ValueError: names file or folder but nothing written in them, for several series, other
            modalities, slices that differ in size or direction, that lie double or with one
            missing, several frames, colour, and damage.
    """
    files = files_of_one_series(Path(source)) if isinstance(source, Path | str) else source
    source_path = files[0] if len(files) == 1 else files[0].parent

    if sum(path.stat().st_size for path in files) > MOST_SERIES_BYTES:
        raise ValueError(
            f"{source_path}: its {len(files)} files have more than {MOST_SERIES_BYTES >> 30} GB: "
            "pass the files of one part"
        )

    with quiet_readers():
        datasets = [read_file(path) for path in files]
        try:
            return assemble_volume(datasets)
        except ValueError as error:
            raise ValueError(f"{source_path}: {error}") from None


def files_of_one_series(source: Path) -> Sequence[Path]:
    """The files of the only series in a folder, or the file itself."""
    if not source.is_dir():
        return [source]

    series, _ = list_series([path for path in list_files(source).files if is_dicom(path)])
    if len(series) != 1:
        counts = ", ".join(str(len(files)) for files in series) or "no"
        raise ValueError(
            f"{source} holds {len(series)} CT or MR series ({counts} slices): pass the "
            "folder or the files of one"
        )
    [files] = series
    return files


def assemble_volume(datasets: list[Dataset]) -> Volume:
    """The slices of one series, in any order, as a volume."""
    modality, rows, columns = check_consistent(datasets)
    datasets, copies = without_copies(datasets)
    datasets, affine, heights, notes = slices_in_place(datasets)
    notes += copies

    values = np.empty((len(datasets), rows, columns), np.float32)
    padded = 0
    for slice_, dataset in zip(values, datasets, strict=True):
        padded += decode_into(slice_, dataset)

    # HU mean the same however they are shown, but MR values mean only what the picture shows.
    if modality == "mri" and is_negative(datasets[0]):
        values = values.max() + values.min() - values
        notes.append("stored as a negative (MONOCHROME1), so its grey levels were inverted back")

    values, _, notes_on_values = cleaned(values.transpose(2, 1, 0), modality)
    if padded:
        notes.append(f"{padded / values.size:.1%} of the voxels are padding, and became background")
    return Volume(values, affine, modality, (*notes, *notes_on_values), heights=heights)


def without_copies(datasets: list[Dataset]) -> tuple[list[Dataset], list[str]]:
    """The slices without exact copies, and a note on how many were left out."""
    slices = {}
    for dataset in datasets:
        # Slices that share a UID, but not position and pixels, are refused later as doubled.
        uid = tag_text(dataset, "SOPInstanceUID") or id(dataset)
        position = tag_text(dataset, "ImagePositionPatient")
        slices.setdefault((uid, position, hash(tag_text(dataset, "PixelData"))), dataset)

    count = len(datasets) - len(slices)
    notes = [f"{count} exact copies of its slices (same SOPInstanceUID) were left out"]
    return list(slices.values()), notes if count else []


def is_negative(dataset: Dataset) -> bool:
    """Whether a DICOM image shows low values bright."""
    return tag_text(dataset, "PhotometricInterpretation") == "MONOCHROME1"


def check_consistent(datasets: list[Dataset]) -> tuple[str, int, int]:
    """The modality, rows and columns that all slices share; ValueError where they do not."""
    first = datasets[0]
    modality = tag_text(first, "Modality")
    if modality not in MODALITY_OF_TAG:
        raise ValueError("it is neither CT nor MR (by its tag Modality): only these are read")

    for dataset in datasets:
        check_grey_slice(dataset)

    for keyword in ("Modality", "PhotometricInterpretation", "SeriesInstanceUID", "PatientID"):
        if len({tag_text(dataset, keyword) for dataset in datasets}) > 1:
            raise ValueError(f"its slices differ in {keyword}: pass the files of one series")

    counts = {"Rows": 1, "Columns": 1, "PixelSpacing": 2, "ImageOrientationPatient": 6}
    for keyword, count in counts.items():
        expected = tag_numbers(first, keyword, count)
        for dataset in datasets:
            if not np.allclose(tag_numbers(dataset, keyword, count), expected, atol=1e-3):
                raise ValueError(
                    f"its slices differ in {keyword}, as in a localizer: pass the files of one "
                    "stack"
                )

    rows = int(tag_numbers(first, "Rows", 1)[0])
    columns = int(tag_numbers(first, "Columns", 1)[0])
    if not 0 < rows * columns <= MOST_SLICE_PIXELS:
        raise ValueError(
            f"it claims slices of {rows} x {columns} pixels, which cannot be right: copy or export "
            "it again"
        )
    check_shape((columns, rows, len(datasets)))
    return MODALITY_OF_TAG[modality], rows, columns


def check_grey_slice(dataset: Dataset) -> None:
    """Raise ValueError unless it is one frame of grey values."""
    if tag_text(dataset, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(
            "it is a colour picture, or does not say what its pixels are: give the original images"
        )
    if tag_text(dataset, "NumberOfFrames") not in ("", "1"):
        raise ValueError(
            "it holds several frames (as an enhanced or moving image): convert it to NIfTI "
            "first, e.g. by dcm2niix"
        )


def decode_into(slice_: np.ndarray, dataset: Dataset) -> int:
    """Fill (rows, columns) float32 with rescaled pixels, and return how many are padding."""
    from pydicom.pixels import apply_modality_lut, get_decoder

    syntax = readable_syntax(dataset)
    # gdcm decodes JPEG 2000 too, but prints what it finds wrong; Pillow does not.
    if "pillow" in get_decoder(syntax).available_plugins:
        dataset.pixel_array_options(decoding_plugin="pillow")
    try:
        stored = dataset.pixel_array
        slice_[:] = apply_modality_lut(stored, dataset)
        padding = padding_mask(stored, dataset)
    except Exception as error:
        advice = f"; if it is intact, {PLUGINS}" if syntax.is_compressed else ""
        raise ValueError(
            f"the pixels of a slice cannot be decoded ({syntax.name}, {type(error).__name__}): "
            f"copy it again{advice}"
        ) from None

    if padding.any() and not padding.all():
        measured = slice_[~padding]
        if tag_text(dataset, "Modality") == "CT":
            slice_[padding] = LOWEST_HU
        elif is_negative(dataset):
            slice_[padding] = measured.max()
        else:
            slice_[padding] = measured.min()
    return int(padding.sum())


def readable_syntax(dataset: Dataset) -> UID:
    """How the pixels are stored, if a decoder for that is installed."""
    from pydicom.pixels import get_decoder

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
    return syntax


def padding_mask(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Where stored values are padding, bool."""
    if dataset.get("PixelPaddingValue") is None:
        return np.zeros(stored.shape, bool)

    value = int(dataset.PixelPaddingValue)
    limit = dataset.get("PixelPaddingRangeLimit")
    limit = value if limit is None else int(limit)
    lowest, highest = min(value, limit), max(value, limit)

    # The tags may count as signed what the pixels count as unsigned: -2000 and 63536 are the same
    # 16 bits. Modulo the number of levels, the two agree.
    levels = 2 ** int(dataset.BitsAllocated)
    above_lowest = (stored.astype(np.int64) - lowest) % levels
    return above_lowest <= highest - lowest
