"""PNG files that Pillow cannot write: whatever the header says, over any bytes."""

import struct
import zlib

GREY, COLOUR = 0, 2


def png_bytes(width, height, raw, bits=8, kind=GREY):
    """A PNG whose header claims this size, depth and kind, and whose rows are `raw`."""

    def chunk(name, data):
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
