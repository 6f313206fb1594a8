"""Hostile zips: whatever is in them, nothing lands outside the folder, memory stays small, and the
end is a sentence.
"""

import errno
import io
import re
import stat
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from ctmri_utils.scans import archives
from ctmri_utils.scans.archives import BadArchive, unpack

NAMES = ("images/a.png", "images/sub/b.png", "c d.jpg", "é")
GOOD = {
    name: np.random.default_rng(i).bytes(300) + 2000 * bytes([i]) for i, name in enumerate(NAMES)
}


def zipped(*entries, method=zipfile.ZIP_DEFLATED):
    """A zip of (name or ZipInfo, data) pairs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


def attempt(place, data):
    """Unpack `data` in place/target, beside a file that must survive; the bytes of each file."""
    place.mkdir(exist_ok=True)
    (place / "beside").write_text("mine")
    (place / "it.zip").write_bytes(data)
    try:
        target = place / "target"
        report = unpack(place / "it.zip", target, reserved=("manifest.json",))
        files = [path for path in target.rglob("*") if path.is_file()]
        found = {path.relative_to(target).as_posix(): path.read_bytes() for path in files}
        assert {name: entry["bytes"] for name, entry in report.items()} == {
            name: len(data) for name, data in found.items()
        }
        return found
    finally:
        assert sorted(path.name for path in place.iterdir()) == ["beside", "it.zip", "target"]
        assert (place / "beside").read_text() == "mine"
        assert not any(path.is_symlink() for path in place.rglob("*"))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_good_zip_arrives_byte_by_byte_and_replaces_what_was_there(tmp_path, method):
    attempt(tmp_path / "x", zipped(("old.png", b"old")))
    assert attempt(tmp_path / "x", zipped(("images/", b""), *GOOD.items(), method=method)) == GOOD


def special(kind, target=b"/etc/passwd"):
    entry = zipfile.ZipInfo("link.png")
    entry.create_system, entry.external_attr = 3, (kind | 0o777) << 16
    return entry, target


def with_header(data, entry, **fields):
    """Change fields of one entry in the central directory: offsets as in APPNOTE 4.3.12."""
    places = {"flag": (8, "<H"), "size": (24, "<L"), "offset": (42, "<L")}
    start = [found.start() for found in re.finditer(b"PK\1\2", data)][entry]
    changed = bytearray(data)
    for name, value in fields.items():
        struct.pack_into(places[name][1], changed, start + places[name][0], value)
    return bytes(changed)


two = zipped(("a.png", 3000 * b"a"), ("b.png", 3000 * b"b"))
HOSTILE = {
    "upwards": (zipped(("../evil", b"x")), "unsafe path"),
    "upwards inside": (zipped(("a/../../evil", b"x")), "unsafe path"),
    "absolute": (zipped(("/tmp/evil", b"x")), "unsafe path"),
    "a drive": (zipped(("C:/evil", b"x")), "unusual name"),
    "a backslash": (zipped(("..\\evil", b"x")), "unusual name"),
    "a dot": (zipped(("./evil", b"x")), "unsafe path"),
    "no name": (zipped(("a//b", b"x")), "unsafe path"),
    "a line": (zipped(("a\nb", b"x")), "unusual name"),
    "a dot at the end": (zipped(("evil.", b"x")), "unusual name"),
    "a long name": (zipped((300 * "x", b"x")), "unusual name"),
    "a deep path": (zipped((20 * "x/" + "y", b"x")), "unusual name"),
    "the manifest": (zipped(("manifest.json", b"{}")), "unsafe path"),
    "a symbolic link": (zipped(special(stat.S_IFLNK)), "not a regular file"),
    "a pipe": (zipped(special(stat.S_IFIFO)), "not a regular file"),
    "a device": (zipped(special(stat.S_IFCHR)), "not a regular file"),
    "the same twice": (two.replace(b"b.png", b"a.png"), "the same name"),
    "the same but for case": (two.replace(b"b.png", b"A.png"), "the same name"),
    "a file as a folder": (zipped(("a", b"x"), ("a/b", b"x")), "the same name"),
    "a file of 4 GB": (with_header(two, 0, size=2**32 - 2), "implausibly large"),
    "many large files": (zipped(*((f"{i}.png", b"x") for i in range(3))), "it claims"),
    "encrypted": (with_header(two, 1, flag=1), "encrypted"),
    "bzip2": (zipped(("a", b"x"), method=zipfile.ZIP_BZIP2), "unusual compression"),
    "lzma": (zipped(("a", b"x"), method=zipfile.ZIP_LZMA), "unusual compression"),
    "less than declared": (with_header(two, 0, size=2999), "damaged"),
    "more than declared": (with_header(two, 0, size=3001), "damaged"),
    "overlapping": (with_header(two, 1, offset=0), "damaged"),
    "an offset behind the end": (with_header(two, 1, offset=2**31), "damaged"),
    "empty": (b"", "not a zip"),
    "a page": (b"<html>", "not a zip"),
    "cut off": (two[:-30], "not a zip"),
    "cut in front": (two[50:], "damaged"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_zip_is_refused_in_one_sentence(tmp_path, monkeypatch, case):
    data, sentence = HOSTILE[case]
    if case == "many large files":
        monkeypatch.setattr(archives, "MOST_FILES", 2)
    with pytest.raises(BadArchive, match=sentence):
        attempt(tmp_path / "x", data)
    # The problem was seen before anything was written.
    if sentence != "damaged":
        assert not list((tmp_path / "x" / "target").iterdir())


def test_a_bomb_is_refused_by_what_it_declares(tmp_path, monkeypatch):
    bomb = zipped(*((f"{i}.png", bytes(1_000_000)) for i in range(10)))
    assert len(bomb) < 20_000
    monkeypatch.setattr(archives, "MOST_BYTES", 9_000_000)
    with pytest.raises(BadArchive, match=r"10 files of 0\.0 GB"):
        attempt(tmp_path / "x", bomb)
    monkeypatch.setattr(archives, "LARGEST_FILE", 900_000)
    monkeypatch.setattr(archives, "MOST_BYTES", 20_000_000)
    with pytest.raises(BadArchive, match="'0.png' is implausibly large"):
        attempt(tmp_path / "x", bomb)


def test_a_bomb_that_lies_about_its_size_fills_neither_disk_nor_memory(tmp_path):
    bomb = with_header(zipped(("a.png", bytes(60_000_000))), 0, size=1000)
    tracemalloc.start()
    with pytest.raises(BadArchive, match="Bad CRC-32"):
        attempt(tmp_path / "x", bomb)
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()
    assert (tmp_path / "x" / "target" / "a.png").stat().st_size <= 1000


def test_an_endless_table_of_contents_is_not_read(tmp_path):
    directory = 10_000_000
    data = bytes(directory) + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, directory, 0, 0)
    tracemalloc.start()
    with pytest.raises(BadArchive, match="table of contents is implausibly large"):
        attempt(tmp_path / "x", data)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_a_full_disk_is_known_before_anything_is_written(tmp_path, monkeypatch):
    usage = archives.shutil.disk_usage
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage(path)._replace(free=5999))
    with pytest.raises(OSError, match="are needed") as caught:
        attempt(tmp_path / "x", two)
    assert caught.value.errno == errno.ENOSPC and not list((tmp_path / "x" / "target").iterdir())


HOSTILE_BYTES = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"../e", b"\xff\xff\xff\x7f")


def corrupted(data, rng):
    """One to five bytes changed, runs overwritten or left out.

    Half of the damage hits the headers, and a tenth is cut off as well.
    """
    data, heads = bytearray(data), [found.start() for found in re.finditer(b"PK", data)]
    for _ in range(rng.integers(1, 6)):
        at = rng.integers(len(data))
        if rng.random() < 0.5:
            at = min(rng.choice(heads) + rng.integers(46), len(data) - 1)
        kind = rng.integers(4)
        if kind == 0:
            data[at] = rng.integers(256)
        elif kind == 1:
            data[at] ^= 1 << rng.integers(8)
        elif kind == 2:
            data[at : at + 4] = HOSTILE_BYTES[rng.integers(4)]
        else:
            del data[at : at + rng.integers(1, 40)]
    return bytes(data[: rng.integers(len(data))] if rng.random() < 0.1 else data)


def test_600_random_corruptions_end_in_a_sentence_or_in_plain_files(tmp_path):
    rng, refused = np.random.default_rng(2026), 0
    originals = [
        zipped(*GOOD.items()),
        zipped(*GOOD.items(), method=zipfile.ZIP_STORED),
        zipped(special(stat.S_IFLNK), *GOOD.items()),
    ]
    tracemalloc.start()
    for round_ in range(600):
        try:
            attempt(tmp_path / "x", corrupted(originals[round_ % 3], rng))
        except BadArchive as error:
            refused += 1
            assert "\n" not in str(error)
    assert 400 < refused < 600 and tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
