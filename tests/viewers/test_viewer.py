"""What the viewers hand to the browser, and what they refuse.

Tests/browser holds what is seen there.
"""

import html
import json
import re
import subprocess
import sys
import zlib
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from ctmri_utils.machine import data_folder
from ctmri_utils.scans.folders import folder_scans
from ctmri_utils.scans.phantom import synthetic_patients
from ctmri_utils.units import HU
from ctmri_utils.viewers import viewer
from ctmri_utils.viewers.html_pages import SCRIPT, STYLE
from ctmri_utils.viewers.packing import pack
from ctmri_utils.viewers.viewer import (
    browse,
    compare,
    error_explorer,
    training_strip,
    window_level,
)

REAL = np.stack([np.full((8, 8), value, float) for value in (0, 40, 80)])
FAKE = REAL + np.array([0, 500, -250])[:, None, None]
ROOT = Path(viewer.__file__).parents[2]


def unpacked(data, columns):
    """As viewer.mjs does it, value by value."""
    stored = zlib.decompress(data)
    starts = np.frombuffer(stored, "<u4", 18).tolist()
    low, high = np.frombuffer(stored, np.uint8, offset=72).reshape(2, -1).tolist()
    # what is left of and above the first row
    values = [0] * (columns + 1)
    while len(values) < len(low) + columns + 1:
        left, above, corner = values[-1], values[-columns], values[-columns - 1]
        group = (abs(left - corner) + abs(above - corner)).bit_length()
        code = low[starts[group]] + 256 * high[starts[group]]
        starts[group] += 1
        rest = -(code + 1) // 2 if code % 2 else code // 2
        predicted = sorted((left, above, left + above - corner))[1]
        values.append((predicted + rest + 32768) % 65536 - 32768)
    return np.array(values[columns + 1 :])


@pytest.mark.parametrize("columns", [1, 7, 40])
def test_packed_values_come_back(columns):
    rng = np.random.default_rng(0)
    values = rng.integers(-32768, 32768, 1000 // columns * columns).astype(np.int16)
    values[:2] = -32768, 32767  # the widest step wraps
    assert np.array_equal(unpacked(pack(values, columns), columns), values)


def test_the_browser_gets_whole_hounsfield_units_of_both_scans():
    made = compare(REAL + 0.4, FAKE - 0.4, alt="three flat slices")
    assert np.array_equal(unpacked(made.data, 8), np.concatenate([REAL, FAKE]).ravel())
    kept = [(image["gain"], image["offset"], image["unit"]) for image in made.spec["images"]]
    assert kept == [(1, 0, "HU")] * 2


def test_densities_beyond_16_bits_saturate():
    made = browse(np.array([[-40_000, 0, 1e6]]), alt="three pixels")
    assert unpacked(made.data, 3).tolist() == [-32768, 0, 32767]


@pytest.mark.parametrize(
    "values",
    [np.array([[-32768, 32767]], np.int16), np.array([[0, 65504]], np.float16)],
    ids=["int16", "float16"],
)
def test_a_type_s_whole_range_does_not_overflow(values):
    made = browse(values, alt="two pixels", unit="MR unit")
    [image] = made.spec["images"]
    read = unpacked(made.data, 2) * image["gain"] + image["offset"]
    assert np.allclose(read, values.ravel().astype(float), rtol=1e-6)


def test_mr_values_are_kept_to_a_four_thousandth_of_their_range():
    mri = np.random.default_rng(0).gamma(2, 100, (2, 9, 9))
    made = browse(mri, alt="noise", unit="MR unit")
    [image] = made.spec["images"]
    read = unpacked(made.data, 9) * image["gain"] + image["offset"]
    # float32 rounds a little, too
    assert np.abs(read - mri.ravel()).max() <= np.ptp(mri) / 4095 / 2 * 1.001
    assert made.spec["unit"] == "MR unit" and list(made.spec["windows"]) == ["full range"]


def test_both_mr_scans_share_one_window():
    made = compare(REAL, 10 * REAL, alt="flat slices", units="MR unit")
    assert made.spec["windows"] == {"full range": [40, 80]}
    assert [image["window"] for image in made.spec["images"]] == [None, None]


def test_uncertainty_comes_third_with_a_limit_and_a_mode_of_its_own():
    uncertainty = np.abs(FAKE - REAL) / 10
    made = compare(REAL, FAKE, alt="three flat slices", uncertainty=uncertainty, names=("a", "b"))
    assert np.array_equal(unpacked(made.data, 8), np.concatenate([REAL, FAKE, uncertainty]).ravel())
    assert made.spec["modes"][-1] == "uncertainty"
    assert [image["name"] for image in made.spec["images"]] == ["a", "b", "uncertainty"]
    third = made.spec["images"][2]
    assert (third["unit"], third["limit"], third["window"]) == ("HU", 200, [100, 200])
    assert "uncertainty" not in compare(REAL, FAKE, alt="three flat slices").spec["modes"]


@pytest.mark.parametrize("units", ["MR unit", ("HU", "MR unit")])
def test_uncertainty_of_an_mr_scan_is_full_where_it_is_largest(units):
    def limit(uncertainty):
        made = compare(REAL, FAKE, alt="flat slices", units=units, uncertainty=uncertainty)
        assert made.spec["images"][2]["unit"] == "MR unit"
        return made.spec["images"][2]["limit"]

    assert limit(3 * REAL) == 240
    assert limit(0 * REAL) > 0


@pytest.mark.parametrize("uncertainty", [REAL[:2], REAL * np.nan, "no", REAL / 100])
def test_uncertainty_that_cannot_be_shown_is_refused(uncertainty):
    with pytest.raises(ValueError):
        compare(REAL, FAKE, alt="three flat slices", uncertainty=uncertainty)


MANY = np.broadcast_to(0, (10_000, 128, 128))
NOT_FINITE = [REAL * np.nan, REAL + np.inf]
OTHER_SHAPES = [REAL[:2], REAL[:0], REAL[None], REAL[0, 0], [REAL[0], REAL[1][:5]], MANY]
OTHER_KINDS = [REAL > 0, None, "ct.png", ["ct.png"], REAL + 0j, REAL / 80]


@pytest.mark.parametrize("real", [*NOT_FINITE, *OTHER_SHAPES, *OTHER_KINDS])
def test_slices_that_cannot_be_shown_are_refused(real):
    with pytest.raises(ValueError):
        compare(real, FAKE, alt="nothing to see")


def test_of_too_many_slices_some_are_proposed():
    with pytest.raises(ValueError, match=r"\[::10\]"):
        browse(MANY, alt="nothing to see")


@pytest.mark.parametrize(
    "options",
    [
        {"names": ("CT", "CT")},
        {"names": ("CT",)},
        {"units": ("HU",)},
        {"units": ()},
        {"spacing_mm": (1, 1)},
        {"spacing_mm": float("nan")},
        {"spacing_mm": (1, 1, 0)},
        {"spacing_mm": -2},
        {"labels": np.arange(2)},
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_refused(options):
    with pytest.raises(ValueError):
        compare(REAL, FAKE, alt="nothing to see", **options)


def test_labels_may_be_an_array_of_numbers():
    spec = browse(REAL, alt="flat slices", labels=np.arange(3)).spec
    assert spec["planes"][0]["labels"] == ["0", "1", "2"]


def test_unknown_sides_are_left_blank():
    made = browse(REAL, alt="flat slices", marks="", spacing_mm=(3, 1, 1))
    # left, right, top, bottom
    assert [plane["marks"] for plane in made.spec["planes"]] == ["", "  SI", "  SI"]


@pytest.mark.parametrize(
    ("patients", "metrics", "missing"),
    [
        (["a", "a", "b"], ["MAE HU"], "MAE HU for patient b"),
        (["a"] * 3, [], "3 and 0"),
        ([], ["MAE HU"], "0 and 1"),
        (["a"], ["MAE HU"], "1 labels"),
        (["a"] * 3, ["SSIM"], "SSIM for patient a"),
    ],
)
def test_scores_that_are_missing_are_named(patients, metrics, missing):
    options = {"method": "net", "metrics": metrics, "alt": "flat slices"}
    with pytest.raises(ValueError, match=missing):
        error_explorer(made_up([1.0], "MAE HU"), REAL, FAKE, patients, **options)


def test_strips_must_be_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        training_strip(tmp_path, alt="no strips")


def made_up(values, metric):
    """Scores of the patients a, b, ..."""
    rows = [("net", patient, metric, value) for patient, value in zip("abc", values)]
    return pd.DataFrame(rows, columns=["method", "patient", "metric", "value"])


def explored(values, metric, patients="abc"):
    options = {"method": "net", "metrics": [metric], "alt": "flat slices"}
    return error_explorer(made_up(values, metric), REAL, FAKE, patients, **options).spec


@pytest.mark.parametrize(
    ("metric", "values", "order"),
    [
        ("MAE HU", (1, 2, 3), "cba"),
        ("SSIM", (1, 2, 3), "abc"),
        ("bone Dice", (0.2, np.nan, 0.1), "cab"),
        ("bias HU", (5, -100, 20), "bca"),
        ("HD95 mm", (4, np.inf, np.nan), "bac"),
        ("PSNR dB", (np.inf, 20, 30), "bca"),
    ],
)
def test_the_worst_comes_first_whichever_way_a_metric_points(metric, values, order):
    spec = explored(values, metric)
    assert "".join(row["name"] for row in spec["table"]["rows"]) == order
    assert spec["state"]["slice"] == "abc".index(order[0])


def test_what_is_no_number_is_written_as_it_is():
    spec = explored((np.inf, np.nan, -np.inf), "HD95 mm")
    numbers = {row["name"]: row["numbers"] for row in spec["table"]["rows"]}
    assert numbers == {"a": ["∞"], "b": ["–"], "c": ["−∞"]}
    json.dumps(spec, allow_nan=False)


def test_patients_need_not_lie_together():
    rows = explored((1, 2), "MAE HU", "aba")["table"]["rows"]
    assert [(row["name"], row["start"]) for row in rows] == [("b", 1), ("a", 0)]


def test_window_level_sends_the_slices_once():
    made = window_level(REAL, alt="flat slices")
    assert [image["source"] for image in made.spec["images"]] == [0, 0]
    assert unpacked(made.data, 8).size == REAL.size


def saved(made, folder):
    made.save(folder / "page.html")
    return (folder / "page.html").read_text(encoding="utf-8")


def test_a_saved_page_stands_alone_and_cannot_be_broken_out_of(tmp_path):
    made = compare(REAL, FAKE, alt='</script><b>"bold"', names=("</script>", "b"))
    text = saved(made, tmp_path)
    assert text.count("</script>") == 2 and "<b>" not in text
    assert "default-src 'none'" in text and not re.search(r"https?://(?!www\.w3\.org/)", text)
    [payload] = re.findall(r'<script type="application/json">(.*?)</script>', text, re.S)
    assert json.loads(payload)["spec"]["images"][0]["name"] == "</script>"


def test_a_saved_page_begins_with_a_picture_that_says_what_it_shows(tmp_path):
    text = saved(compare(REAL, FAKE, alt="flat & <plain>", names=("CT", "MR")), tmp_path)
    alt, jpeg = re.search(r'<img alt="(.*?)" src="data:image/jpeg;base64,(.*?)">', text).groups()
    assert alt == "flat &amp; &lt;plain&gt;"
    assert text.index("<img") < text.index("<div data-viewer>")
    picture = np.asarray(Image.open(BytesIO(b64decode(jpeg))).convert("L"), float)
    height, width = picture.shape
    # the second row: 0, 540 and -170 HU
    middles = [picture[height * 3 // 4, width * k // 12] for k in (3, 6, 9)]
    assert np.allclose(middles, [0, 255, 0], atol=12)  # JPEG is not exact


@pytest.mark.parametrize("path", ["nowhere/page.html", "."])
def test_a_page_that_cannot_be_written_says_so(tmp_path, path):
    with pytest.raises(OSError):
        browse(REAL, alt="flat slices").save(tmp_path / path)


def test_a_saved_notebook_keeps_montage_and_page_without_a_widget():
    made = compare(REAL, FAKE, alt="three <flat> slices")
    shown, _ = DisplayFormatter().format(made)
    assert shown.keys() == {"text/plain", "text/html"}
    assert shown["text/plain"] == "Viewer: three <flat> slices"
    parts = re.compile(r"<div>(<img .*?>)(<iframe .*)</iframe></div>", flags=re.S)
    montage, frame = parts.fullmatch(shown["text/html"]).groups()
    assert montage == made.montage() and 'alt="three &lt;flat&gt; slices"' in montage
    assert made.section() in html.unescape(frame)


def test_the_widget_begins_with_what_the_page_shows_at_first():
    made = compare(REAL, FAKE, alt="three flat slices")
    assert made.widget.spec == made.spec and made.widget.data == made.data
    assert {name: getattr(made.widget, name) for name in made.spec["state"]} == made.spec["state"]
    synced = made.widget.trait_names(sync=True)
    assert made.spec["state"].keys() <= set(synced)


def test_ct_is_browsed_in_a_brain_and_a_bone_window_and_mr_in_its_own():
    spec = browse(REAL, alt="flat slices").spec
    bone = viewer.WINDOWS["bone"]
    assert [image["window"] for image in spec["images"]] == [None, [bone.level, bone.width]]
    assert [image["source"] for image in spec["images"]] == [0, 0]
    assert spec["state"].items() >= {"mode": "side", "level": 40, "width": 80}.items()
    assert browse(REAL, unit="MR unit", alt="flat slices").spec["modes"] == ["single"]


def test_without_widgets_the_page_is_shown_and_the_package_imports():
    code = (
        "import sys; sys.modules['anywidget'] = sys.modules['ipywidgets'] = None\n"
        "import numpy as np; from ctmri_utils.viewers.viewer import browse\n"
        "made = browse(np.zeros((2, 4, 4)), alt='dark')\n"
        "print(made._repr_html_()[:9])\n"
        "try: made.widget\nexcept ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    beginning, sentence = done.stdout.splitlines()
    assert beginning == "<div><img"
    assert "anywidget" in sentence, done.stderr


def test_32_slices_at_128_fit_in_a_megabyte(tmp_path):
    ct_hu = HU.from_network(folder_scans(data_folder() / "scans", 128).train.ct[:32, 0].numpy())
    noisy = ct_hu + np.random.default_rng(0).normal(0, 15, ct_hu.shape) * (ct_hu > -990)
    # noise everywhere, in air too
    made_up = [synthetic_patients(32, 128, seed).ct_hu for seed in (1, 2)]
    for pair, limit in (((ct_hu, noisy), 0.7e6), (made_up, 1e6)):
        assert len(saved(compare(*pair, alt="two scans of 32 slices"), tmp_path)) < limit


def test_the_viewer_stays_small():
    """Every page carries script and style."""
    assert len(SCRIPT) + len(STYLE) < 40_000
