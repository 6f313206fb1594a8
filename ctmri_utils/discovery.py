"""Which files below a folder are scans, and what is left out, counted.

Volumes and slices are found by the same rules:

* links to files and folders are followed; a file that is reached twice counts once;
* hidden files and what operating systems add (`__MACOSX`, `._x`, `.DS_Store`, `Thumbs.db`) are
  skipped and not counted;
* NIfTI, MetaImage (.mha, .mhd) and NRRD files are known by their endings, DICOM by its content,
  with or without the mark DICM;
* masks, label maps and dose are left out: by the words in their names, and volumes also by their
  values, which are few whole numbers (see `looks_like_labels`);
* what this package translated itself says so in its header (`SYNTHETIC_LABEL`) and is not a scan,
  nor is the map of its expected errors, which its name tells too (`ERROR_MAP_ENDING`).

`patients` finds the patient of each scan.
"""

from __future__ import annotations

import gzip
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

# What every translation says of itself: NIfTI in `descrip`, MetaImage and NRRD in a comment, and
# DICOM in three tags.
SYNTHETIC_LABEL = "SYNTHETIC {} - NOT FOR CLINICAL USE"

# What maps of expected errors say of themselves, see `volumes.error_maps`.
EXPECTED_ERROR = f"EXPECTED ERROR OF {SYNTHETIC_LABEL}"

# The names of maps end like this, because other programs drop the label when they save a map again.
ERROR_MAP_ENDING = "_uncertainty"

# Either label in a header.
OWN_LABEL = re.compile("(EXPECTED ERROR OF )?" + SYNTHETIC_LABEL.format("(CT|MR)"))

NIFTI = (".nii", ".nii.gz")
ITK = (".mha", ".mhd", ".nrrd")
GZIP_MAGIC = b"\x1f\x8b"
NIFTI2_HEADER_BYTES = 540

# A file that is one volume says what it is within its first bytes.
START_BYTES = 2**12

SYSTEM_NAMES = {"__macosx", "thumbs.db", "desktop.ini"}

# Reasons for leaving a file out; other files are named by their ending.
BROKEN_LINK = "broken link (not fetched?)"
LOCKED = "file or folder that may not be opened"
LABELS = "mask, label map or dose"
OTHER_DICOM = "DICOM file that is not a CT or MR image"
OTHER_MODALITY = "file named as another modality"
TRANSLATED = "translation made by this package"
ERROR_MAP = "map of expected errors, by its header or its name"

LABEL_WORDS = set(
    "mask masks seg segs segm segmentation segmentations dseg probseg label labels labelmap "
    "labelmaps labelstr labelsts labelsval roi rois contour contours dose rtdose aseg aparc "
    "parc parcellation gtv ctv ptv".split()
)

# Words by which a name says its modality; `other` is neither CT nor MR.
MODALITY_WORDS = {
    "ct": set("ct cta ncct cect".split()),
    "mri": set("mr mri mra t1 t1w t1c t1ce t1gd t1n t2 t2w t2f t2s flair pdw mprage".split()),
    "other": set("cbct pet suv spect sct synct".split()),
}

# A label map has at most this many values: TotalSegmentator 118, FreeSurfer about as many.
MOST_LABELS = 256
# An image of at most this many whole numbers is a label map, whatever its voxels look like.
FEW_VALUES = 16
# Share of voxels whose neighbour has the same value: 0.9 in label maps, below 0.2 in 8-bit MR.
SAME_NEIGHBOUR = 0.6


@dataclass(frozen=True)
class Listing:
    """The visible files of a folder.

    Args:
        files: sorted; the path is the one through which the file was reached.
        left_out: how many files were left out already, by reason.
    """

    files: tuple[Path, ...]
    left_out: Counter = field(default_factory=Counter)


def list_files(source: Path) -> Listing:
    """List every visible file in a folder, at any depth; of a file, the file itself.

    Args:
        source: a file or a folder. Its own name may be hidden.

    Returns:
        The files. Links are followed, and circles of links end.
    """
    source = Path(source)
    if not source.is_dir():
        return Listing((source,) if source.exists() else ())

    left_out = Counter()
    files, links = [], []
    for _, paths in walk_folders(source, left_out):
        for path in paths:
            if path.is_symlink() and path.is_file():
                links.append(path)
            elif path.is_file():
                files.append(path)
            elif path.is_symlink() and not path.is_dir():
                left_out[BROKEN_LINK] += 1

    # Links come last, so that a scan which is reached twice is listed where it really lies.
    by_real_path = {}
    for path in files + sorted(links):
        by_real_path.setdefault(os.path.realpath(path), path)
    return Listing(tuple(sorted(by_real_path.values())), left_out)


def list_folders(source: Path) -> list[Path]:
    """Every visible folder below a folder, sorted; links are followed, and circles end."""
    folders = [folder for folder, _ in walk_folders(source, Counter())]
    return sorted(folders[1:])


def walk_folders(source: Path, left_out: Counter) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder with what is visible in it, each once; those behind links come last."""
    folders, links, entered = [source], [], set()
    while folders or links:
        folder = folders.pop() if folders else links.pop()
        real_path = os.path.realpath(folder)
        if real_path in entered:
            continue

        entered.add(real_path)
        paths = visible_paths(folder, left_out)
        yield folder, paths
        subfolders = [path for path in paths if path.is_dir()]
        folders += [path for path in subfolders if not path.is_symlink()]
        links += [path for path in subfolders if path.is_symlink()]
        links.sort(reverse=True)


def visible_paths(folder: Path, left_out: Counter) -> list[Path]:
    """What lies in a folder, without hidden files and those of the operating system."""
    try:
        names = os.listdir(folder)
        paths = [folder / name for name in names if not is_hidden(name)]
        for path in paths:
            # A folder that may be listed but not entered raises here.
            path.is_dir()
        return paths
    except PermissionError:
        left_out[LOCKED] += 1
        return []
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or made by an operating system for itself."""
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES


def ending(path: Path) -> str:
    """The ending of a file's name, such as ".nii.gz" or ".txt"; "no ending" if it has none."""
    match = re.search(r"(\.[a-z]{1,4})?\.[a-z][a-z0-9_]{0,9}$", path.name.lower())
    if match is None or path.name.startswith(match[0]):
        return "no ending"
    is_packed = path.suffix.lower() in (".gz", ".bz2", ".xz", ".zip")
    return match[0] if is_packed else path.suffix.lower()


def stem(name: str) -> str:
    """A file's name without the ending that says its type; other dots belong to the name."""
    return re.sub(
        r"(?i)(\.nii|\.nii\.gz|\.nrrd|\.mh[ad]|\.dcm|\.ima|\.png|\.jpe?g|\.tiff?)$", "", name
    )


def left_out_notes(left_out: Counter) -> list[str]:
    """One sentence on what was left out, or none."""
    if not left_out:
        return []
    kinds = [f"{count} x {reason}" for reason, count in sorted(left_out.items())]
    total = left_out.total()
    return [f"{total} {'file was' if total == 1 else 'files were'} left out: {', '.join(kinds)}"]


def listed(names: Iterable[str], separator: str = ", ", most: int = 3) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    shown = names[:most]
    if len(names) > most:
        shown.append(f"and {len(names) - most} more")
    return separator.join(shown)


def printable(text: object) -> str:
    """Text that any screen can show: bytes of a name that are no UTF-8 become question marks."""
    return os.fsencode(str(text)).decode("utf-8", "replace").replace("\ufffd", "?")


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its first bytes: the mark, or a data set that begins at once.

    Old archives and treatment planning systems write files without the mark.

    Raises:
        OSError: it may not be opened.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or begins_like_a_data_set(start)


def begins_like_a_data_set(start: bytes) -> bool:
    """Whether bytes begin with a DICOM tag of group 2 or 8, in any of its encodings."""
    if len(start) < 132:
        return False

    is_little_endian = start[:4] in first_tags("little")
    is_big_endian = start[:4] in first_tags("big")
    is_explicit = start[4:6] in (b"CS", b"UI", b"UL", b"OB", b"DA", b"TM", b"LO", b"SH")
    is_implicit = int.from_bytes(start[4:8], "little") <= 64
    return (is_little_endian and (is_explicit or is_implicit)) or (is_big_endian and is_explicit)


def first_tags(order: str) -> set[bytes]:
    """The tags (gggg,eeee) with which a data set may begin."""
    tags = [(2, 0), (2, 1)] + [(8, element) for element in (0, 1, 5, 8, 0x12, 0x14, 0x16, 0x18)]
    return {group.to_bytes(2, order) + element.to_bytes(2, order) for group, element in tags}


def own_label(path: Path) -> str:
    """The label in a NIfTI, MetaImage or NRRD file that this package made; "" in others."""
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
        if start.startswith(GZIP_MAGIC):
            with gzip.open(path, "rb") as file:
                start = file.read(START_BYTES)
    except (OSError, EOFError, ValueError):
        # Reading the scan will say what is wrong with it.
        return ""
    return label_in(start.decode("latin-1"))


def label_in(text: str) -> str:
    """The label of this package in a header's text, "" if there is none."""
    match = OWN_LABEL.search(text)
    return match[0] if match else ""


def labels_error_map(label: str) -> bool:
    """Whether a label is that of a map of expected errors."""
    return label.startswith(EXPECTED_ERROR.split("{")[0])


def words_of(name: str) -> list[str]:
    """The words of a name in lower case: "P1_T1w-Seg" has p1, t1w and seg."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return re.findall(r"[^\W_]+", text)


def is_named_as_labels(parts: Sequence[str]) -> bool:
    """Whether a path below the source is named as a mask, label map or dose.

    A word of the file's name says it, or a folder that is called so.
    """
    *folders, name = parts
    words = [word.rstrip("0123456789") for word in words_of(stem(name))]
    if LABEL_WORDS & set(words):
        return True
    return any(LABEL_WORDS >= set(words_of(folder)) and words_of(folder) for folder in folders)


def is_named_as_error_map(name: str) -> bool:
    """Whether a file is called as this package calls its maps of expected errors."""
    return stem(name).casefold().endswith(ERROR_MAP_ENDING)


def named_modality(name: str) -> str:
    """What a file's name says of the modality: "ct", "mri", "other" or ""; two say nothing."""
    words = set(words_of(stem(name)))
    matches = [modality for modality, known in MODALITY_WORDS.items() if words & known]
    return matches[0] if len(matches) == 1 else ""


def looks_like_labels(values: np.ndarray, few: int = FEW_VALUES, most: int = MOST_LABELS) -> bool:
    """Whether an image holds labels, not measured values.

    Labels are few whole numbers from -1 on, mostly in large pieces; or hardly any different values
    at all, as in a mask that was scaled.

    Args:
        values: at least two dimensions; finite.
        few: up to this many different whole numbers are always labels.
        most: more different values than this are never labels.
    """
    sample = values.ravel()[:: max(1, values.size // 50_000)]
    if values.min() < -1 or len(np.unique(sample)) > most:
        return False

    levels, counts = np.unique(values, return_counts=True)
    if len(levels) <= 3:
        return True
    if len(levels) > most or (levels != np.rint(levels)).any():
        return False
    if len(levels) <= few:
        return True

    # Background does not count: it is flat in images too.
    background = levels[np.argmax(counts)]
    inside = (values[:-1] != background) & (values[1:] != background)
    has_same_neighbour = values[:-1] == values[1:]
    return bool(inside.any() and has_same_neighbour[inside].mean() > SAME_NEIGHBOUR)
