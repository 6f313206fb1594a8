"""A page that translates NIfTI files in the reader's own browser, in one HTML file.

`ctmri page --translate WEIGHTS OUT.html`. Nothing is installed and nothing is asked of a network:
ONNX Runtime Web and both generators stand inside the page. The scripts in the folder `browser`
follow the modules of this room step by step. Numbers and sentences are not written twice: the page
gets Python's own, read out of its source.
"""

from __future__ import annotations

import ast
import gzip
import inspect
import json
import tempfile
from base64 import b64encode
from pathlib import Path
from types import ModuleType

import numpy as np

from .. import discovery, masks, units
from ..cyclegan.model import Translator
from ..evaluation import inputs
from ..machine import data_folder
from ..runs.export import card_of, export_onnx, physical_generator
from ..runs.weights import load_translator
from ..units import HU
from ..viewers import pages, specification
from ..viewers.viewer import compare
from . import axial_slices, head_checks, input_checks, nifti, scan_files, translate, volume
from .translate import OTHER, SCALES
from .volume import MODALITIES

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

# Their numbers and texts are those of the page.
NUMBERS_OF = (
    units,
    masks,
    discovery,
    inputs,
    specification,
    volume,
    nifti,
    head_checks,
    input_checks,
)

# The page's name of each sentence: where it stands, and how it begins.
SENTENCES = {
    "damaged": (nifti, "{} is damaged ("),
    "no_nifti": (nifti, "{} is damaged or not a NIfTI"),
    "long_header": (nifti, "its header is longer"),
    "short": (nifti, "it ends after"),
    "no_dimensions": (nifti, "its header does not give"),
    "no_rotation": (nifti, "its qform is not a rotation"),
    "bad_intercept": (nifti, "its scl_inter"),
    "bad_offset": (nifti, "its vox_offset lies inside its header, and"),
    "offset_note": (nifti, "its vox_offset lies inside its header; its"),
    "qform_note": (nifti, "its sform is not plausible"),
    "no_header": (nifti, "it does not begin like"),
    "colours": (nifti, "its voxels are colours"),
    "unit": (nifti, "its lengths are in"),
    "no_orientation": (nifti, "the file gives no orientation"),
    "no_scan": (scan_files, "{} holds no scan"),
    "give_real": (scan_files, "give real scans"),
    "no_place": (volume, "the position of its voxels"),
    "dimensions": (volume, "it has {} dimensions"),
    "too_many": (volume, "it claims"),
    "labels": (volume, "it holds a few whole numbers"),
    "no_number": (volume, "it holds no finite number"),
    "below_note": (volume, "{:.1%} of the voxels are below"),
    "broken_note": (volume, "{} voxels are not finite numbers"),
    "no_magnitude": (volume, "its values reach down"),
    "no_modality": (volume, "its values are"),
    "taken_note": (volume, "the file does not say what it is"),
    "coarse": (volume, "values from"),
    "normalised": (inputs, "the {} spans {:.4g} to {:.4g}, which"),
    "no_hu": (inputs, "the {} spans {:.4g} to {:.4g} and shows"),
    "no_head": (axial_slices, "no head was found in it"),
    "lost_note": (axial_slices, "{:.1%} of the head lies outside"),
    "no_air": (head_checks, "it shows no air"),
    "filled_note": (head_checks, "{:.1%} of the voxels are exactly"),
    "clipped_note": (head_checks, "{:.1%} of what is denser"),
    "litres_note": (head_checks, "the head that was found has {:.1f} L"),
    "small_note": (head_checks, "the head that was found has {:.0f} cm2"),
    "border_note": (head_checks, "{:.0%} of the border"),
    "across": (input_checks, "its head is {:.2f} times"),
    "upside_down": (input_checks, "its head narrows downwards"),
    "uniform": (input_checks, "its brain is almost uniform"),
    "no_brain": (input_checks, "its brain lies at"),
    "no_skull_mri": (input_checks, "no skull: no dark skull"),
    "no_skull_ct": (input_checks, "no skull: {:.1%}"),
    "contrast": (input_checks, "contrast:"),
    "cut_off": (input_checks, "cut off:"),
    "size": (input_checks, "size:"),
    "not_made": (translate, "these weights make"),
    "constant": (units, "a scale needs"),
}


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
    about = json.dumps(facts(model), allow_nan=False).replace("<", "\\u003c")
    embedded.append(f'<script type="application/json" id="python">{about}</script>')
    body = (FOLDER / "page.html").read_text(encoding="utf-8") + "\n".join(embedded)
    scripts = [pages.SCRIPT.replace("export default", "const viewer =")]
    scripts += [(FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS]
    style = pages.STYLE + (FOLDER / "page.css").read_text(encoding="utf-8")
    document = pages.PAGE.format(
        title=TITLE, policy=POLICY, css=style, script="\n".join(scripts), body=body
    )
    pages.write_text(output, document)


def check_contract(model: Translator, weights: Path) -> None:
    """Raise ValueError for networks whose slices the page cannot make."""
    contract = model.contract
    if contract is None or contract.pixel_mm is None:
        raise ValueError(
            f"{weights} does not say which slices its networks know: train again with this version"
        )
    if contract.ct_unit != HU.unit:
        raise ValueError(
            f"{weights} knows CT in {contract.ct_unit}s, as in pictures, but volumes are in HU: "
            "train on data in HU"
        )
    if max(model.architecture.ct_channels, model.architecture.mri_channels) > 1:
        raise ValueError(
            f"{weights} are for slices of several channels: choose weights for 1, a slice at a time"
        )


def network(model: Translator, to: str) -> bytes:
    """The generator that makes `to` as ONNX, in half precision where that loses nothing."""
    import onnx
    from onnx import numpy_helper

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        generator = physical_generator(model, to)
        export_onnx(path, generator, card_of(model, to), model.contract.size)
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


def facts(model: Translator) -> dict:
    """What the page has to know of this package and of the weights, as JSON holds it."""
    contract = model.contract
    return {
        "constants": numbers(),
        "sentences": {name: sentence(*place) for name, place in SENTENCES.items()},
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
    """The numbers and texts that are written in capitals in `NUMBERS_OF`."""
    found = {}
    for module in NUMBERS_OF:
        for name, value in vars(module).items():
            if name.isupper() and isinstance(value, (int, float, str, tuple)):
                found[name] = value
    not_fetched = {start.decode(): text for start, text in nifti.NOT_FETCHED.items()}
    return found | {"NOT_FETCHED": not_fetched, "OWN_LABEL": discovery.OWN_LABEL.pattern}


def sentence(module: ModuleType, beginning: str) -> str:
    """The one text of a module that begins so, with {} or such as {:.2f} for what is put in.

    Raises:
        ValueError: the module has none, or several.
    """
    nodes = list(ast.walk(ast.parse(inspect.getsource(module))))
    pieces = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    texts = {template(node) for node in nodes if id(node) not in pieces}
    found = [text for text in texts if text.startswith(beginning)]
    if len(found) != 1:
        raise ValueError(
            f"{module.__name__} has {len(found)} sentences that begin with {beginning!r}: correct "
            "SENTENCES"
        )
    return found[0]


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
    other = OTHER[to]
    names = (f"your {MODALITIES[other]}", discovery.SYNTHETIC.format(MODALITIES[to]))
    made = compare(
        empty,
        empty,
        alt=f"Your {MODALITIES[other]} and the synthetic {MODALITIES[to]} made from it.",
        units=(SCALES[other].unit, SCALES[to].unit),
        names=names,
        spacing_mm=(1.0, pixel_mm, pixel_mm),
    )
    if to == "mri":
        scale = SCALES[to]
        window = [(scale.low + scale.high) / 2, scale.high - scale.low]
        made.spec["images"][1] |= {"gain": 1.0, "offset": 0.0, "window": window}
    return made.spec
