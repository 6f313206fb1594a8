"""Unpack a zip from an untrusted source.

Every entry is checked before anything is written: nothing lands outside the folder, and nothing is
larger than expected.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

MOST_FILES = 100_000
MOST_BYTES = 8 * 2**30
LARGEST_FILE = 2**26  # bytes
# At most this many bytes of a zip are read into memory at once.
LARGEST_READ = 2**23

# On one system or another, no part of a name may hold these characters.
FORBIDDEN = r'[\x00-\x1f\x7f\\:*?"<>|]|[ .]$'
MOST_PARTS = 16
LONGEST_PART = 200  # bytes

# zipfile and zlib raise these for bytes made to break them. Their only common ancestor is
# Exception.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


class BadArchive(ValueError):
    """What is wrong with a zip, in one sentence."""


def unpack(archive: Path, folder: Path, reserved: Sequence[str] = ()) -> dict[str, dict]:
    """Check all entries of a zip, then write them below an emptied folder.

    Args:
        archive: the zip.
        folder: whatever it held before is deleted.
        reserved: names, in lower case, that no entry may begin with.

    Returns:
        {name: {"bytes": size, "sha256": hexadecimal digest}}.

    Raises:
        BadArchive: the zip is damaged, or holds anything but a reasonable number of plain files of
            reasonable sizes with plain names.
        OSError: with ENOSPC, before anything is written, if the disk has too little room.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with LimitedReads(archive) as stream, zipfile.ZipFile(stream) as zipped:
            entries = plain_files(zipped, reserved)
            check_room(folder, sum(entry.file_size for entry in entries))
            return {entry.filename: extract_entry(zipped, entry, folder) for entry in entries}
    except DAMAGE as error:
        raise BadArchive(f"the zip is damaged or refused ({error}): get it again") from error
    except OSError as error:
        # The system answers EINVAL when zipfile seeks to a place before the beginning.
        if error.errno != errno.EINVAL:
            raise
        raise BadArchive(
            "the zip is damaged (its parts are not where it says): get it again"
        ) from error


def check_room(folder: Path, needed: int) -> None:
    """Check that the disk of an existing folder has room.

    Args:
        folder: an existing folder.
        needed: bytes.

    Raises:
        OSError: with ENOSPC, if fewer bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC, f"{needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are left"
        )


class LimitedReads(io.FileIO):
    """A file that refuses large reads: zipfile would load a table of contents of any size."""

    def read(self, size=-1):
        available = os.fstat(self.fileno()).st_size - self.tell()
        reads_everything = size is None or size < 0
        length = available if reads_everything else min(size, available)
        if length > LARGEST_READ:
            raise zipfile.BadZipFile("its table of contents is implausibly large")
        return super().read(size)


def plain_files(zipped: zipfile.ZipFile, reserved: Sequence[str]) -> list[zipfile.ZipInfo]:
    """The entries to extract, all of them checked."""
    entries = [entry for entry in zipped.infolist() if not entry.is_dir()]
    total = sum(entry.file_size for entry in entries)
    if len(entries) > MOST_FILES or total > MOST_BYTES:
        raise zipfile.BadZipFile(f"it claims {len(entries)} files of {total / 1e9:.1f} GB")

    files, folders = set(), set()
    for entry in entries:
        # Names that differ only in case are one file on some systems.
        parts = entry.filename.casefold().split("/")

        problem = name_problem(parts, reserved) or content_problem(entry)
        if problem:
            raise zipfile.BadZipFile(f"{entry.filename[:80]!r} {problem}")
        files.add("/".join(parts))
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))

    if len(files) < len(entries) or files & folders:
        raise zipfile.BadZipFile("two of its files have the same name")
    return entries


def name_problem(parts: list[str], reserved: Sequence[str]) -> str:
    """What is wrong with a name, "" if nothing."""
    if parts[0] in reserved or any(part in ("", ".", "..") for part in parts):
        return "has an unsafe path"

    odd = any(re.search(FORBIDDEN, part) for part in parts)
    too_long = any(len(part.encode()) > LONGEST_PART for part in parts)
    if odd or too_long or len(parts) > MOST_PARTS:
        return "has an unusual name"
    return ""


def content_problem(entry: zipfile.ZipInfo) -> str:
    """What is wrong with the kind, size or packing of an entry, "" if nothing."""
    # Zips made on some systems say nothing about the kind: 0.
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is not a regular file"
    if entry.file_size > LARGEST_FILE:
        return "is implausibly large"
    if entry.flag_bits & 1:
        return "is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "uses an unusual compression"
    return ""


def extract_entry(zipped: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> dict:
    """Write one entry below a folder and return its size and digest."""
    # zipfile never writes more than the declared size, and compares the checksum at the end.
    path = Path(zipped.extract(entry, folder))
    size = path.stat().st_size
    if size != entry.file_size:
        raise zipfile.BadZipFile(f"{entry.filename[:80]!r} is cut off")
    with path.open("rb") as copy:
        return {"bytes": size, "sha256": hashlib.file_digest(copy, "sha256").hexdigest()}
