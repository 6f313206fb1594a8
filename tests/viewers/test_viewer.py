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
from ctmri_utils.viewers.packing import pack
from ctmri_utils.viewers.pages import SCRIPT, STYLE
from ctmri_utils.viewers.viewer import (
    browse,
    compare,
    error_explorer,
    training_strip,
    window_level,
)

REAL = np.stack([np.full((8, 8), value, float) for value in (0, 40, 80)])
FAKE = REAL + np.array([0, 500, -250])[:, None, None]
PACKAGE = Path(viewer.__file__).parent


def unpacked(data, columns):
    """As viewer.mjs does it, value by value."""
    stored = zlib.decompress(data)
    starts, (low, high) = (
        np.frombuffer(stored, "<u4", 18).tolist(),
        np.frombuffer(stored, np.uint8, offset=72).reshape(2, -1).tolist(),
    )
    # what is left of and above the first row
    values = [0] * (columns + 1)
    while len(values) < len(low) + columns + 1:
        left, above, corner = values[-1], values[-columns], values[-columns - 1]
        group = (abs(left - corner) + abs(above - corner)).bit_length()
        code = low[starts[group]] + 256 * high[starts[group]]
        starts[group] += 1
        rest = -(code + 1) // 2 if code % 2 else code // 2
        values.append(
            (sorted((left, above, left + above - corner))[1] + rest + 32768) % 65536 - 32768
        )
    return np.array(values[columns + 1 :])


@pytest.mark.parametrize("columns", [1, 7, 40])
def test_packed_values_come_back(columns):
    values = (
        np.random.default_rng(0).integers(-32768, 32768, 1000 // columns * columns).astype(np.int16)
    )
    values[:2] = -32768, 32767  # the widest step wraps
    assert np.array_equal(unpacked(pack(values, columns), columns), values)


def test_the_browser_gets_whole_hounsfield_units_of_both_scans():
    made = compare(REAL + 0.4, FAKE - 0.4, alt="three flat slices")
    assert np.array_equal(unpacked(made.data, 8), np.concatenate([REAL, FAKE]).ravel())
    assert [(image["gain"], image["offset"], image["unit"]) for image in made.spec["images"]] == [
        (1, 0, "HU")
    ] * 2


def test_densities_beyond_16_bits_saturate():
    assert unpacked(browse(np.array([[-40_000, 0, 1e6]]), alt="three pixels").data, 3).tolist() == [
        -32768,
        0,
        32767,
    ]


@pytest.mark.parametrize(
    "values",
    [np.array([[-32768, 32767]], np.int16), np.array([[0, 65504]], np.float16)],
    ids=["int16", "float16"],
)
def test_a_type_s_whole_range_does_not_overflow(values):
    made = browse(values, alt="two pixels", unit="MR unit")
    [image] = made.spec["images"]
    assert np.allclose(
        unpacked(made.data, 2) * image["gain"] + image["offset"],
        values.ravel().astype(float),
        rtol=1e-6,
    )


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
    assert made.spec["windows"] == {"full range": [40, 80]} and [
        image["window"] for image in made.spec["images"]
    ] == [None, None]


def test_uncertainty_comes_third_with_a_limit_and_a_mode_of_its_own():
    uncertainty = np.abs(FAKE - REAL) / 10
    made = compare(REAL, FAKE, alt="three flat slices", uncertainty=uncertainty, names=("a", "b"))
    assert np.array_equal(unpacked(made.data, 8), np.concatenate([REAL, FAKE, uncertainty]).ravel())
    assert made.spec["modes"][-1] == "uncertainty" and [
        image["name"] for image in made.spec["images"]
    ] == ["a", "b", "uncertainty"]
    assert (
        made.spec["images"][2].items()
        >= {"unit": "HU", "limit": viewer.UNCERTAINTY_LIMIT_HU, "window": [100, 200]}.items()
    )
    assert "uncertainty" not in compare(REAL, FAKE, alt="three flat slices").spec["modes"]


@pytest.mark.parametrize("units", ["MR unit", ("HU", "MR unit")])
def test_uncertainty_of_an_mr_scan_is_full_where_it_is_largest(units):
    made = compare(REAL, FAKE, alt="three flat slices", units=units, uncertainty=3 * REAL)
    assert made.spec["images"][2]["unit"] == "MR unit" and made.spec["images"][2]["limit"] == 240
    assert (
        compare(REAL, FAKE, alt="three flat slices", units=units, uncertainty=0 * REAL).spec[
            "images"
        ][2]["limit"]
        > 0
    )


@pytest.mark.parametrize(
    ("uncertainty", "sentence"),
    [
        (REAL[:2], r"one shape, got \(3, 8, 8\) and \(3, 8, 8\) and \(2, 8, 8\)"),
        (REAL * np.nan, "uncertainty must be finite"),
        ("no", "uncertainty must be numbers"),
        (REAL / 100, "not HU"),
    ],
)
def test_uncertainty_that_cannot_be_shown_gets_one_sentence(uncertainty, sentence):
    with pytest.raises(ValueError, match=sentence):
        compare(REAL, FAKE, alt="three flat slices", uncertainty=uncertainty)


MANY = np.broadcast_to(0, (10_000, 128, 128))


@pytest.mark.parametrize(
    ("real", "sentence"),
    [
        (REAL[:2], r"both scans need slices of one shape, got \(2, 8, 8\) and \(3, 8, 8\)"),
        (MANY, r"show every 10th slice, \[::10\]"),
        (REAL * np.nan, "real must be finite values"),
        (REAL + np.inf, "real must be finite values"),
        (REAL[:0], r"got float64 \(0, 8, 8\)"),
        (REAL[None], r"got float64 \(1, 3, 8, 8\)"),
        (REAL[0, 0], r"got float64 \(8,\)"),
        ([REAL[0], REAL[1][:5]], "got slices of different shapes"),
        (REAL > 0, r"got bool \(3, 8, 8\)"),
        (None, "got None"),
        ("ct.png", "got 'ct.png'"),
        (["ct.png"], "got <U6"),
        (REAL + 0j, "got complex128"),
        (REAL / 80, r"values in \[-1, 1\] are the network's"),
    ],
)
def test_slices_that_cannot_be_shown_get_one_sentence(real, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        compare(real, FAKE, alt="nothing to see")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"names": ("CT", "CT")}, "two different names"),
        ({"names": ("CT",)}, "two different names"),
        ({"units": ("HU",)}, "one unit or two"),
        ({"units": ()}, "one unit or two"),
        ({"spacing_mm": (1, 1)}, "spacing_mm must be"),
        ({"spacing_mm": float("nan")}, "spacing_mm must be"),
        ({"spacing_mm": (1, 1, 0)}, "spacing_mm must be"),
        ({"spacing_mm": -2}, "spacing_mm must be"),
        ({"labels": np.arange(2)}, "2 labels for 3 slices"),
    ],
)
def test_arguments_that_do_not_fit_get_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        compare(REAL, FAKE, alt="nothing to see", **options)


def test_labels_may_be_an_array_of_numbers():
    assert browse(REAL, alt="flat slices", labels=np.arange(3)).spec["planes"][0]["labels"] == [
        "0",
        "1",
        "2",
    ]


def test_sides_that_are_not_known_are_left_blank_and_up_and_down_stay_known():
    made = browse(REAL, alt="flat slices", marks="", spacing_mm=(3, 1, 1))
    # left, right, top, bottom
    assert [plane["marks"] for plane in made.spec["planes"]] == ["", "  SI", "  SI"]


@pytest.mark.parametrize(
    ("patients", "metrics", "sentence"),
    [
        (["a", "a", "b"], ["MAE HU"], "no MAE HU for patient b"),
        (["a"] * 3, [], "no metric given"),
        ([], ["MAE HU"], "none given"),
        (["a"], ["MAE HU"], "1 labels for 3 slices"),
        (["a"] * 3, ["SSIM"], "no SSIM for patient a"),
    ],
)
def test_scores_that_are_missing_are_named(patients, metrics, sentence):
    with pytest.raises(ValueError, match=sentence):
        error_explorer(
            made_up([1.0], "MAE HU"),
            REAL,
            FAKE,
            patients,
            method="net",
            metrics=metrics,
            alt="flat slices",
        )


def test_strips_must_be_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no strips"):
        training_strip(tmp_path, alt="no strips")


def made_up(values, metric):
    """Scores of the patients a, b, ..."""
    rows = [("net", patient, metric, value) for patient, value in zip("abc", values)]
    return pd.DataFrame(rows, columns=["method", "patient", "metric", "value"])


def explored(values, metric, patients="abc"):
    scores = made_up(values, metric)
    return error_explorer(
        scores, REAL, FAKE, list(patients), method="net", metrics=[metric], alt="flat slices"
    ).spec


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
    assert "".join(row["name"] for row in spec["table"]["rows"]) == order and spec["state"][
        "slice"
    ] == "abc".index(order[0])


def test_what_is_no_number_is_written_as_it_is():
    spec = explored((np.inf, np.nan, -np.inf), "HD95 mm")
    assert {row["name"]: row["numbers"] for row in spec["table"]["rows"]} == {
        "a": ["∞"],
        "b": ["–"],
        "c": ["−∞"],
    }
    json.dumps(spec, allow_nan=False)


def test_patients_need_not_lie_together():
    assert [
        (row["name"], row["start"]) for row in explored((1, 2), "MAE HU", "aba")["table"]["rows"]
    ] == [("b", 1), ("a", 0)]


def test_window_level_sends_the_slices_once():
    made = window_level(REAL, alt="flat slices")
    assert [image["source"] for image in made.spec["images"]] == [0, 0] and unpacked(
        made.data, 8
    ).size == REAL.size


def test_a_saved_page_stands_alone_and_cannot_be_broken_out_of(tmp_path):
    compare(REAL, FAKE, alt='</script><b>"bold"', names=("</script>", "b")).save(
        tmp_path / "page.html"
    )
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("</script>") == 2 and "<b>" not in text
    assert "default-src 'none'" in text and not re.search(r"https?://(?!www\.w3\.org/)", text)
    payload = json.loads(
        re.search(r'<script type="application/json">(.*?)</script>', text, re.S)[1]
    )
    assert payload["spec"]["images"][0]["name"] == "</script>"


def test_a_saved_page_begins_with_a_picture_that_says_what_it_shows(tmp_path):
    compare(REAL, FAKE, alt="flat & <plain>", names=("CT", "MR")).save(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    alt, jpeg = re.search(r'<img alt="(.*?)" src="data:image/jpeg;base64,(.*?)">', text).groups()
    assert alt == "flat &amp; &lt;plain&gt;" and text.index("<img") < text.index(
        "<div data-viewer>"
    )
    picture = np.asarray(Image.open(BytesIO(b64decode(jpeg))).convert("L"), float)
    height, width = picture.shape
    # the second row: 0, 540 and -170 HU
    middles = [picture[height * 3 // 4, width * k // 12] for k in (3, 6, 9)]
    assert np.allclose(middles, [0, 255, 0], atol=12)  # JPEG is not exact


@pytest.mark.parametrize("path", ["nowhere/page.html", "."])
def test_a_page_that_cannot_be_written_says_so(tmp_path, path):
    with pytest.raises(OSError, match=r"^cannot write .*: (No such file|Is a directory)"):
        browse(REAL, alt="flat slices").save(tmp_path / path)


def test_a_notebook_keeps_the_montage_and_the_page_but_no_widget_that_could_be_lost():
    made = compare(REAL, FAKE, alt="three <flat> slices")
    shown, _ = DisplayFormatter().format(made)
    assert shown.keys() == {"text/plain", "text/html"}
    assert shown["text/plain"] == "Viewer: three <flat> slices"
    montage, frame = re.fullmatch(
        r"<div>(<img .*?>)(<iframe .*)</iframe></div>", shown["text/html"], flags=re.S
    ).groups()
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
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parents[1]
    )
    beginning, sentence = done.stdout.splitlines()
    assert beginning == "<div><img"
    assert (
        sentence
        == 'the live viewer needs anywidget: pip install "ctmri-utils[course]", or save a page '
        "instead"
    ), done.stderr


def test_32_slices_at_128_fit_in_a_megabyte(tmp_path):
    ct_hu = HU.from_network(folder_scans(data_folder() / "scans", 128).train.ct[:32, 0].numpy())
    noisy = ct_hu + np.random.default_rng(0).normal(0, 15, ct_hu.shape) * (ct_hu > -990)
    # noise everywhere, in air too
    made_up = [synthetic_patients(32, 128, seed).ct_hu for seed in (1, 2)]
    for pair, limit in (((ct_hu, noisy), 0.7e6), (made_up, 1e6)):
        compare(*pair, alt="two scans of 32 slices").save(tmp_path / "page.html")
        assert (tmp_path / "page.html").stat().st_size < limit


def test_the_viewer_stays_small():
    """Every page carries script and style."""
    assert len(SCRIPT) + len(STYLE) < 40_000
