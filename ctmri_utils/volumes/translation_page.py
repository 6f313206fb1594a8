"""A page that translates NIfTI files in the reader's own browser, in one HTML file.

`ctmri translator WEIGHTS OUT.html`. Nothing is installed and nothing is asked of a network:
ONNX Runtime Web and both generators stand inside the page. The scripts in the folder `browser`
follow the modules of this room step by step. Numbers and sentences are not written twice: the page
gets Python's own, read out of its source.
"""

from __future__ import annotations

import ast
import gzip
import inspect
import json
import re
import tempfile
from base64 import b64encode
from pathlib import Path
from types import ModuleType

import numpy as np

from .. import discovery, masks, units
from ..cyclegan.model import Translator
from ..evaluation import checked_inputs
from ..machine import data_folder
from ..runs.export import PhysicalGenerator, export_onnx
from ..runs.weights import load_translator
from ..units import MODALITIES, other_modality
from ..viewers import html_pages, specification
from ..viewers.viewer import compare
from . import axial_slices, input_checks, network_slices, nifti, scan_files, volume
from .network_slices import SCALES, check_one_channel, slice_grid

TITLE = "Translate your own scan"
FOLDER = Path(__file__).parent / "browser"
SCRIPTS = (
    "sentences.mjs",
    "matrices.mjs",
    "statistics.mjs",
    "nifti.mjs",
    "volume.mjs",
    "axial.mjs",
    "masks.mjs",
    "checks.mjs",
    "translate.mjs",
    "page.mjs",
)

# Only what stands in the page may run: its scripts, WebAssembly, and the runtime as a blob.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; "
    "style-src 'unsafe-inline'; img-src data:; connect-src 'none'"
)

# The page shows the numbers and the sentences of these modules.
SOURCES = (
    units,
    masks,
    discovery,
    checked_inputs,
    specification,
    volume,
    nifti,
    axial_slices,
    input_checks,
    scan_files,
    network_slices,
)

# The scripts ask for one of Python's sentences by its beginning.
USE_OF_SENTENCE = re.compile(r'\b(?:say|refuse)\(\s*"([^"]+)"')


def write_translation_page(weights: Path, output: Path) -> None:
    """Write a page that translates what its reader drops, in both directions that there are.

    Args:
        weights: a run or a file of weights with a contract, such as data/weights/heads.safetensors.
        output: the page, an HTML file of about 9 MB.

    Raises:
        ValueError: the weights have no contract, or know no HU.
        ModuleNotFoundError: onnxscript is missing.
        OSError: the page cannot be written; in one sentence.
    """
    model = load_translator(weights)
    check_contract(model, weights)
    runtime = data_folder() / "runtime"
    parts = {
        "runtime-script": (runtime / "ort.wasm.bundle.min.mjs.gz").read_bytes(),
        "runtime-wasm": (runtime / "ort-wasm-simd-threaded.wasm.gz").read_bytes(),
    }
    for to in model.contract.makes:
        parts[f"network-{to}"] = gzip.compress(network(model, to), mtime=0)

    embedded = [
        f'<script type="application/gzip" id="{name}">{b64encode(part).decode()}</script>'
        for name, part in parts.items()
    ]
    scripts = own_scripts()
    facts_json = json.dumps(facts(model, scripts), allow_nan=False).replace("<", "\\u003c")
    embedded.append(f'<script type="application/json" id="python">{facts_json}</script>')
    viewer = html_pages.SCRIPT.replace("export default", "const viewer =")
    document = html_pages.PAGE.format(
        title=TITLE,
        policy=POLICY,
        css=html_pages.STYLE + (FOLDER / "page.css").read_text(encoding="utf-8"),
        script=f"{viewer}\n{scripts}",
        body=(FOLDER / "page.html").read_text(encoding="utf-8") + "\n".join(embedded),
    )
    html_pages.write_page(output, document)


def check_contract(model: Translator, weights: Path) -> None:
    """Raise ValueError for networks whose slices the page cannot make."""
    contract = model.contract
    if contract is None or contract.pixel_mm is None:
        raise ValueError(
            f"{weights} does not say which slices its networks know: train again with this version"
        )
    for to in contract.makes:
        slice_grid(model, to)
    check_one_channel(model, weights)


def network(model: Translator, to: str) -> bytes:
    """The generator that makes `to` as ONNX, in half precision where that loses nothing."""
    import onnx
    from onnx import numpy_helper

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        generator = PhysicalGenerator(model, to)
        export_onnx(path, generator, generator.card, model.contract.size)
        exported = onnx.load(path)

    graph = exported.graph
    for weight in list(graph.initializer):
        values = numpy_helper.to_array(weight)
        half = values.astype(np.float16)
        if values.dtype != np.float32 or (half != values).any():
            continue
        # The runtime widens them once, when it reads the graph.
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        widen = onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT)
        graph.node.insert(0, widen)
    return exported.SerializeToString()


def own_scripts() -> str:
    """The scripts of the folder `browser`, one after the other."""
    return "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)


def facts(model: Translator, scripts: str) -> dict:
    """What the scripts have to know of this package and of the weights, as JSON holds it."""
    contract = model.contract
    return {
        "constants": numbers(),
        "sentences": sentences(scripts),
        "contract": {
            "size": contract.size,
            "pixel_mm": contract.pixel_mm,
            "mri_percentiles": contract.mri_percentiles,
            "makes": contract.makes,
        },
        "knows": contract.describe(),
        "scales": {to: {"low": scale.low, "high": scale.high} for to, scale in SCALES.items()},
        "viewers": {to: viewer_of(to, contract.size, contract.pixel_mm) for to in contract.makes},
    }


def numbers() -> dict:
    """The numbers and texts that are written in capitals in `SOURCES`."""
    constants = {}
    for module in SOURCES:
        for name, value in vars(module).items():
            if name.isupper() and isinstance(value, (int, float, str, tuple)):
                constants[name] = value
    not_fetched = {start.decode(): text for start, text in nifti.NOT_FETCHED.items()}
    return constants | {"NOT_FETCHED": not_fetched, "OWN_LABEL": discovery.OWN_LABEL.pattern}


def sentences(scripts: str) -> dict[str, str]:
    """The sentences of `SOURCES` that scripts use, by the beginnings that the scripts name.

    They have {} or such as {:.2f} where something is put in.

    Raises:
        ValueError: no sentence begins so, or several do.
    """
    texts = set().union(*(texts_of(module) for module in SOURCES))
    by_beginning = {}
    for beginning in USE_OF_SENTENCE.findall(scripts):
        matches = [text for text in texts if text.startswith(beginning)]
        if len(matches) != 1:
            raise ValueError(
                f"{len(matches)} sentences of the package begin with {beginning!r}: correct the "
                f"scripts in {FOLDER}"
            )
        by_beginning[beginning] = matches[0]
    return by_beginning


def texts_of(module: ModuleType) -> set[str]:
    """Every string in the source of a module; f-strings as `template` writes them."""
    nodes = list(ast.walk(ast.parse(inspect.getsource(module))))
    pieces = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    return {template(node) for node in nodes if id(node) not in pieces}


def template(node: ast.AST) -> str:
    """The text of a string, "" of anything else; f-strings keep the formats of their holes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return ""

    parts = []
    for part in node.values:
        if isinstance(part, ast.Constant):
            parts.append(part.value)
        elif part.format_spec is None:
            parts.append("{}")
        else:
            parts.append(f"{{:{template(part.format_spec)}}}")
    return "".join(parts)


def viewer_of(to: str, size: int, pixel_mm: float) -> dict:
    """The specification of a viewer for a stack of one slice, which the page fits to its scan."""
    empty = np.zeros((1, size, size))
    source = other_modality(to)
    names = (f"your {MODALITIES[source]}", discovery.SYNTHETIC_LABEL.format(MODALITIES[to]))
    viewer = compare(
        empty,
        empty,
        alt=f"Your {MODALITIES[source]} and the synthetic {MODALITIES[to]} made from it.",
        units=(SCALES[source].unit, SCALES[to].unit),
        names=names,
        spacing_mm=(1.0, pixel_mm, pixel_mm),
    )
    if to == "mri":
        scale = SCALES[to]
        window = [(scale.low + scale.high) / 2, scale.high - scale.low]
        viewer.spec["images"][1] |= {"gain": 1.0, "offset": 0.0, "window": window}
    return viewer.spec
