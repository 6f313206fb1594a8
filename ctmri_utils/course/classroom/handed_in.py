"""The files that were handed in, out of folders and zips."""

from __future__ import annotations

import re
import time
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

# What may be unpacked: zips in zips to this depth, and so much from one student's zip.
DEEPEST_ZIP = 3
ZIP_MB = 500
ZIP_FILES = 5000

# Files of operating systems, which no student hands in.
CLUTTER = re.compile(
    r"(^|/)(__MACOSX|__pycache__|\..*|Thumbs\.db|desktop\.ini)(/|$)|\.pyc$", flags=re.I
)


@dataclass(frozen=True)
class HandedInFile:
    """A file that a student may have handed in.

    Args:
        parts: of its path; zips count as folders.
        data: what it holds.
        modified: when it was changed last, in seconds.
        problem: why it cannot be read, "" if it can.
    """

    parts: tuple[str, ...]
    data: bytes = b""
    modified: float = 0.0
    problem: str = ""

    @property
    def path(self) -> str:
        return "/".join(self.parts)


def gather(source: Path) -> list[HandedInFile]:
    """All files in a folder or a zip, and those in zips inside, without systems' own files.

    Raises:
        ValueError: it is a file that is no zip.
    """
    source = Path(source)
    if source.is_file():
        files = unpack((), source.read_bytes())
        if files[0].parts == ("",):
            raise ValueError(f"{source} is {files[0].problem}: name a folder or a zip")
        return files

    files = []
    for path in sorted(source.rglob("*")):
        parts = path.relative_to(source).parts
        if CLUTTER.search("/".join(parts)):
            continue
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            # A link might lead to the solutions.
            files.append(HandedInFile(parts, problem="a link, not the notebook"))
        elif path.is_dir():
            if all(CLUTTER.search(child.name) for child in path.iterdir()):
                files.append(HandedInFile((*parts, ""), problem="an empty folder"))
        elif path.stat().st_size > ZIP_MB << 20:
            files.append(HandedInFile(parts, problem=f"larger than {ZIP_MB} MB"))
        else:
            files += open_zip(parts, path.read_bytes(), path.stat().st_mtime)
    return files


@dataclass
class UnpackLimit:
    """How much may still be unpacked from one student's zip and the zips in it."""

    megabytes: int = ZIP_MB
    files: int = ZIP_FILES

    def take(self, entries: list[zipfile.ZipInfo]) -> None:
        """Count the files of a zip; ValueError if there are too many, or they are too large."""
        megabytes = sum(entry.file_size for entry in entries) >> 20
        if megabytes > self.megabytes or len(entries) > self.files:
            raise ValueError(f"{megabytes} MB, {len(entries)} files")
        self.megabytes -= megabytes
        self.files -= len(entries)


def open_zip(
    parts: tuple[str, ...],
    data: bytes,
    modified: float,
    depth: int = 0,
    limit: UnpackLimit | None = None,
) -> list[HandedInFile]:
    """The files of a zip, or else the file itself."""
    if not zipfile.is_zipfile(BytesIO(data)) or is_office_document(parts[-1]):
        return [HandedInFile(parts, data, modified)]
    if depth == DEEPEST_ZIP:
        return [HandedInFile(parts, problem="an archive nested too deeply", modified=modified)]
    return unpack((*parts[:-1], stem(parts[-1])), data, depth, limit or UnpackLimit())


def unpack(
    folder: tuple[str, ...], data: bytes, depth: int = 0, limit: UnpackLimit | None = None
) -> list[HandedInFile]:
    """The files of a zip, with `folder` in front of their names.

    A zip of the whole class has no limit for the zips in it together: each gets one of its own.
    """
    files = []
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            (limit or UnpackLimit()).take(entries)
            for entry in entries:
                if not CLUTTER.search(entry.filename):
                    inner = PurePosixPath(entry.filename.replace("\\", "/")).parts
                    modified = time.mktime((*entry.date_time, 0, 0, -1))
                    content = archive.read(entry)
                    files += open_zip((*folder, *inner), content, modified, depth + 1, limit)
    except Exception as error:
        # Any file at all may have been handed in.
        return [HandedInFile((*folder, ""), problem=f"an archive that cannot be opened ({error})")]
    return files or [HandedInFile((*folder, ""), problem="an empty archive")]


def is_office_document(name: str) -> bool:
    """Whether a file is a zip only inside."""
    return name.lower().endswith((".docx", ".xlsx", ".pptx", ".odt"))


def stem(name: str) -> str:
    """A file's name without its endings, such as .ipynb.txt."""
    return re.sub(r"(\.(ipynb|json|txt|html?|py|pdf|docx?|zip))+$", "", name, flags=re.I)
