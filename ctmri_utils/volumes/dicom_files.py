"""Single DICOM files and their tags; no error quotes what a file holds."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..discovery import begins_like_a_data_set, label_in
from ..machine import import_optional

if TYPE_CHECKING:
    from pydicom import Dataset

DEFLATED = b"1.2.840.10008.1.2.1.99"
MOST_FILE_BYTES = 2**28


def read_file(path: Path, pixels: bool = True) -> Dataset:
    """The tags of one file, and its pixels.

    Args:
        path: the file.
        pixels: False reads the tags only.

    Raises:
        ValueError: names the file, but quotes nothing from it, if it is damaged or too large.
    """
    pydicom = import_optional("pydicom")
    if path.stat().st_size > MOST_FILE_BYTES:
        raise ValueError(
            f"{path} is larger than {MOST_FILE_BYTES >> 20} MB, so it is not a single slice: "
            "convert it to NIfTI first"
        )

    # The whole file is read at once, so that a wrong length inside it can claim no memory.
    content = path.read_bytes()
    has_mark = content[128:132] == b"DICM"
    if not has_mark and not begins_like_a_data_set(content[:132]):
        raise ValueError(
            f"{path} is not a DICOM file, lacking the mark DICM: copy or export it again"
        )
    if DEFLATED in content[:1024]:
        raise ValueError(
            f"{path} is deflated as a whole, so its true size is unknown: save it uncompressed, "
            "e.g. by dcmconv +te"
        )

    try:
        dataset = pydicom.dcmread(
            BytesIO(content), stop_before_pixels=not pixels, force=not has_mark
        )
        if not has_mark:
            record_encoding(dataset)
        return dataset
    except Exception as error:
        # The errors are of many kinds, and their words may quote a patient's name.
        raise ValueError(
            f"{path} is a damaged DICOM file ({type(error).__name__}): copy or export it again"
        ) from None


def record_encoding(dataset: Dataset) -> None:
    """Write down how a data set without the mark is encoded, which pydicom found by trying."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "SOPClassUID" not in dataset and "Modality" not in dataset:
        raise ValueError("it has no tags of an image")

    meta = getattr(dataset, "file_meta", None) or FileMetaDataset()
    if "TransferSyntaxUID" not in meta:
        is_implicit, is_little_endian = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit
    dataset.file_meta = meta


def own_label(dataset: Dataset) -> str:
    """What the tags of an image that this package made say of it; "" of others."""
    texts = [
        tag_text(dataset, keyword)
        for keyword in ("SeriesDescription", "ImageComments", "DerivationDescription")
    ]
    is_derived = "DERIVED" in tag_text(dataset, "ImageType")
    return label_in(" ".join(texts)) if is_derived else ""


def tag_text(dataset: Dataset, keyword: str) -> str:
    """A tag as text, "" if it is missing or broken."""
    try:
        return str(dataset.get(keyword) or "").strip()
    except Exception:
        return ""


def tag_numbers(dataset: Dataset, keyword: str, count: int) -> np.ndarray:
    """The numbers of a tag.

    Returns:
        (count,) float64.

    Raises:
        ValueError: names the tag, if it is missing or broken.
    """
    try:
        values = np.array(dataset[keyword].value, dtype=np.float64).reshape(count)
    except Exception:
        values = np.array(np.nan)
    if not np.isfinite(values).all():
        raise ValueError(f"the tag {keyword} is missing or broken: export the series again")
    return values
