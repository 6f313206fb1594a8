"""What the viewers hand to the browser, and what they refuse; tests/browser holds what is seen there."""
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from ctmri_utils import viewer
from ctmri_utils.evaluation import Score
from ctmri_utils.viewer import browse, compare, error_explorer, pack, training_strip, window_level

REAL = np.stack([np.full((8, 8), value, float) for value in (0, 40, 80)])
FAKE = REAL + np.array([0, 500, -250])[:, None, None]
PACKAGE = Path(viewer.__file__).parent


def unpacked(data):
    low, high = np.frombuffer(zlib.decompress(data), np.uint8).reshape(2, -1).astype(int)
    code = low | high << 8
    return np.cumsum((code >> 1) ^ -(code & 1)).astype(np.int16)


def test_packed_values_come_back():
    values = np.random.default_rng(0).integers(-32768, 32768, 1000).astype(np.int16)
    values[:2] = -32768, 32767                                   # the widest step wraps
    assert np.array_equal(unpacked(pack(values)), values)


def test_the_browser_gets_whole_hounsfield_units_of_both_scans():
    made = compare(REAL + 0.4, FAKE - 0.4, alt="three flat slices")
    assert np.array_equal(unpacked(made.data), np.concatenate([REAL, FAKE]).ravel())
    assert [(image["gain"], image["offset"], image["unit"]) for image in made.spec["images"]] == [(1, 0, "HU")] * 2


def test_densities_beyond_16_bits_saturate():
    assert unpacked(browse(np.array([[-40_000, 0, 1e6]]), alt="three pixels").data).tolist() == [-32768, 0, 32767]


def test_mr_values_are_kept_to_a_four_thousandth_of_their_range():
    mri = np.random.default_rng(0).gamma(2, 100, (2, 9, 9))
    made = browse(mri, alt="noise", unit="MR unit")
    [image] = made.spec["images"]
    assert np.abs(unpacked(made.data) * image["gain"] + image["offset"] - mri.ravel()).max() <= np.ptp(mri) / 4095 / 2 + 1e-9
    assert made.spec["unit"] == "MR unit" and list(made.spec["windows"]) == ["full range"]


def test_both_mr_scans_share_one_window():
    made = compare(REAL, 10 * REAL, alt="flat slices", units="MR unit")
    assert made.spec["windows"] == {"full range": [40, 80]} and [image["window"] for image in made.spec["images"]] == [None, None]


@pytest.mark.parametrize(("real", "fake", "sentence"), [
    (REAL, FAKE[:2], r"one shape, \(N, H, W\), got \(3, 8, 8\) and \(2, 8, 8\)"), (REAL[:0], FAKE[:0], "one shape"),
    (REAL[None], FAKE[None], "one shape"), (REAL, FAKE * np.nan, "finite values"), (REAL + np.inf, FAKE, "finite values"),
    (np.broadcast_to(0, (10_000, 128, 128)), np.broadcast_to(0, (10_000, 128, 128)), r"10000 slices of 128 x 128 .* slices\[::10\]"),
])
def test_bad_input_gets_one_sentence(real, fake, sentence):
    with pytest.raises(ValueError, match=sentence):
        compare(real, fake, alt="nothing to see")


def test_labels_patients_and_strips_must_be_there(tmp_path):
    with pytest.raises(ValueError, match="2 labels for 3 slices"):
        browse(REAL, alt="flat slices", labels=["a", "b"])
    with pytest.raises(ValueError, match="no MAE HU for patient b"):
        error_explorer([Score("net", "a", "MAE HU", 1.0)], REAL, FAKE, ["a", "a", "b"], method="net", metrics=["MAE HU"], alt="flat slices")
    with pytest.raises(FileNotFoundError, match="holds no strips"):
        training_strip(tmp_path, alt="no strips")


def test_the_worst_comes_first_whichever_way_a_metric_points():
    scores = [Score("net", name, metric, value) for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0)) for metric in ("MAE HU", "SSIM")]
    for metric, worst in (("MAE HU", "cba"), ("SSIM", "abc")):
        made = error_explorer(scores, REAL, FAKE, list("abc"), method="net", metrics=[metric], alt="flat slices")
        assert "".join(row["name"] for row in made.spec["table"]["rows"]) == worst
        assert made.spec["state"]["slice"] == "abc".index(worst[0])


def test_window_level_sends_the_slices_once():
    made = window_level(REAL, alt="flat slices")
    assert [image["source"] for image in made.spec["images"]] == [0, 0] and unpacked(made.data).size == REAL.size


def test_a_saved_page_stands_alone_and_cannot_be_broken_out_of(tmp_path):
    compare(REAL, FAKE, alt='</script><b>"bold"', names=("</script>", "b")).save(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("</script>") == 2 and "<b>" not in text
    assert "default-src 'none'" in text and not re.search(r"https?://(?!www\.w3\.org/)", text)
    payload = json.loads(re.search(r'<script type="application/json">(.*?)</script>', text, re.S)[1])
    assert payload["spec"]["images"][0]["name"] == "</script>"


def test_a_notebook_gets_the_widget_and_every_other_reader_the_page():
    made = compare(REAL, FAKE, alt="three flat slices")
    shown, _ = made._repr_mimebundle_()
    assert shown["text/plain"] == "Viewer: three flat slices" and shown["text/html"].startswith("<iframe srcdoc=")
    assert shown["application/vnd.jupyter.widget-view+json"]["model_id"] == made.widget.model_id
    assert made.widget.spec == made.spec and made.widget.data == made.data
    made.widget.state = {**made.spec["state"], "slice": 2}       # as the browser says it
    assert made.state["slice"] == 2 and made.state["mode"] == "wipe"


def test_without_widgets_the_page_is_shown_and_the_package_imports():
    code = ("import sys; sys.modules['anywidget'] = sys.modules['ipywidgets'] = None\n"
            "import numpy as np; from ctmri_utils.viewer import browse\n"
            "made = browse(np.zeros((2, 4, 4)), alt='dark')\n"
            "print(sorted(made._repr_mimebundle_()))\n"
            "try: made.state\nexcept ImportError as error: print(error)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    mimes, sentence = done.stdout.splitlines()
    assert mimes == "['text/html', 'text/plain']"
    assert sentence == 'the live viewer needs anywidget: pip install "ctmri-utils[course]", or save a page instead', done.stderr


def test_the_viewer_stays_small():
    lines = [line for kind in ("py", "mjs", "css") for line in (PACKAGE / f"viewer.{kind}").read_text(encoding="utf-8").splitlines()]
    assert sum(bool(line.strip()) for line in lines) < 500       # as the lessons' lines are counted, without the empty ones
