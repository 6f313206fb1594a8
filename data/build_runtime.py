"""Renew data/runtime from npm: ONNX Runtime Web, which runs the networks inside a page.

`python data/build_runtime.py` fetches the version below, checks that it is the very file whose
checksum stands here, and packs the two parts that a page needs. For another version change both
numbers, and the card.
"""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import tarfile
import tempfile
from importlib import metadata
from pathlib import Path

VERSION = "1.30.0"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"

# The WebAssembly build for the processor, and its script; others are for graphics cards.
PARTS = ("ort-wasm-simd-threaded.wasm", "ort.wasm.bundle.min.mjs")

# The npm package brings no text of its licence, the Python package of the same project does.
NOTICES = ("LICENSE", "ThirdPartyNotices.txt")

FOLDER = Path(__file__).parent / "runtime"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        package = fetch(folder)
        with tarfile.open(package) as archive:
            parts = {name: archive.extractfile(f"package/dist/{name}").read() for name in PARTS}

    for path in metadata.files("onnxruntime"):
        if path.name in NOTICES and len(path.parts) == 2:
            parts[path.name] = path.locate().read_bytes()

    FOLDER.mkdir(exist_ok=True)
    for name, content in parts.items():
        if name == "LICENSE":
            (FOLDER / name).write_bytes(content)
        else:
            # Without a time, the same content gives the same bytes.
            (FOLDER / f"{name}.gz").write_bytes(gzip.compress(content, 9, mtime=0))
        print(f"{name}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")


def fetch(folder: str) -> Path:
    """The package from npm, in a folder.

    Raises:
        ValueError: it is not the file that was checked.
    """
    command = ["npm", "pack", "--silent", f"onnxruntime-web@{VERSION}"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    [package] = Path(folder).glob("*.tgz")
    found = hashlib.sha256(package.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(
            f"onnxruntime-web {VERSION} from npm has the SHA-256 {found}, not {SHA256}: fetch it "
            "again, and do not use it"
        )
    return package


if __name__ == "__main__":
    main()
