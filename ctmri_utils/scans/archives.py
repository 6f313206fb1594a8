"""A zip from elsewhere is unpacked only after every entry has been looked at.

Nothing lands outside the folder, nothing is endless.
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

MOST_FILES, MOST_BYTES, LARGEST_FILE = 100_000, 8 * 2**30, 2**26
# bytes of a zip held in memory at once
LARGEST_READ = 2**23
# what no part of a name may hold on one system or another
FORBIDDEN = r'[\x00-\x1f\x7f\\:*?"<>|]|[ .]$'
# What zipfile and zlib can raise for bytes made to break them; these have no common ancestor but
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
    """Check all entries of a zip, then write them below `folder`, emptied before: {name: {"bytes".

    ..., "sha256": ...}}.

    Raises BadArchive if it is damaged, or holds anything but a sane number of plain files of sane
    sizes with plain names, none of them beginning with a `reserved` one; OSError with ENOSPC,
    before anything is written, if the disk has not enough room.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with _Sips(archive) as stream, zipfile.ZipFile(stream) as zipped:
            entries = _plain_files(zipped, reserved)
            check_room(folder, sum(entry.file_size for entry in entries))
            return {
                entry.filename: _extract(zipped, entry, folder / entry.filename)
                for entry in entries
            }
    except DAMAGE as error:
        raise BadArchive(f"the zip is damaged or refused ({error})") from error
    except OSError as error:
        # which is what zipfile gets for a place before the beginning
        if error.errno != errno.EINVAL:
            raise
        raise BadArchive("the zip is damaged (its parts are not where it says)") from error


def check_room(folder: Path, needed: int) -> None:
    """Raise OSError with ENOSPC if the disk of an existing folder has not `needed` bytes left."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC, f"{needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are left"
        )


class _Sips(io.FileIO):
    """A zip's file that is not read in gulps.

    Zipfile would load a table of contents of any size into memory.
    """

    def read(self, size=-1):
        left = os.fstat(self.fileno()).st_size - self.tell()
        if (left if size is None or size < 0 else min(size, left)) > LARGEST_READ:
            raise zipfile.BadZipFile("its table of contents is absurdly large")
        return super().read(size)


def _plain_files(zipped: zipfile.ZipFile, reserved: Sequence[str]) -> list[zipfile.ZipInfo]:
    entries = [entry for entry in zipped.infolist() if not entry.is_dir()]
    total = sum(entry.file_size for entry in entries)
    if len(entries) > MOST_FILES or total > MOST_BYTES:
        raise zipfile.BadZipFile(f"{len(entries)} files of {total / 1e9:.1f} GB are absurd")
    files, folders = set(), set()
    for entry in entries:
        # two names that differ in case are one file on some systems
        parts = entry.filename.casefold().split("/")
        for problem, found in (
            (
                "has a path that leads elsewhere",
                any(part in ("", ".", "..") for part in parts) or parts[0] in reserved,
            ),
            (
                "has an odd name",
                len(parts) > 16
                or any(re.search(FORBIDDEN, part) or len(part.encode()) > 200 for part in parts),
            ),
            ("is no plain file", stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG)),
            ("is absurdly large", entry.file_size > LARGEST_FILE),
            ("is encrypted", entry.flag_bits & 1),
            (
                "is packed in an unusual way",
                entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
            ),
        ):
            if found:
                raise zipfile.BadZipFile(f"{entry.filename[:80]!r} {problem}")
        files.add("/".join(parts))
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    if len(files) < len(entries) or files & folders:
        raise zipfile.BadZipFile("two of its files have one name")
    return entries


def _extract(zipped: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> dict:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with zipped.open(entry) as packed, path.open("xb") as copy:
        # never more than the size declared; the end compares the checksum
        while block := packed.read(2**20):
            copy.write(block)
            digest.update(block)
            size += len(block)
    if size != entry.file_size:
        raise zipfile.BadZipFile(f"{entry.filename[:80]!r} is cut off")
    return {"bytes": size, "sha256": digest.hexdigest()}
