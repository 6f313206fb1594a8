"""Figures: right side up, one grey scale per row, and a text for every picture."""

import base64
import io

import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.settings import Architecture
from ctmri_utils.units import GREY, HU
from ctmri_utils.viewers import figures, viewer


def test_montage_draws_row_zero_on_top_and_the_rows_limits_for_every_slice():
    images = np.zeros((2, 8, 8))
    images[0, 0] = 100  # the forehead
    rows = {"ct": figures.ImageRow(images, 0, 200), "mri": figures.ImageRow(images, 0, 100)}
    figure = figures.montage(rows, ["one", "two"])
    pictures = np.asarray(Image.open(io.BytesIO(figures.png(figure))).convert("L"))
    first = figure.axes[0].images[0]
    assert first.origin == "upper" and first.get_interpolation() == "nearest"
    assert [axis.images[0].get_clim() for axis in figure.axes] == [(0, 200)] * 2 + [(0, 100)] * 2
    assert [axis.get_title() for axis in figure.axes[:2]] == ["one", "two"]
    assert figure.axes[2].get_ylabel() == "mri"
    box = figure.axes[0].get_window_extent()
    scale = pictures.shape[0] / figure.bbox.height
    column = pictures[:, int((box.x0 + box.x1) / 2 * scale)]
    top, bottom = pictures.shape[0] - int(box.y1 * scale), pictures.shape[0] - int(box.y0 * scale)
    assert column[top + 4] > 100 and column[bottom - 4] < 20  # bright above, dark below


def test_ct_row_applies_the_clinical_window_and_names_the_known_ones():
    assert figures.ct_row(np.zeros((1, 4, 4)), "brain")[1:3] == (0, 80)
    with pytest.raises(ValueError):
        figures.ct_row(np.zeros((1, 4, 4)), "brian")


def test_difference_row_is_symmetric_and_has_a_colour_bar():
    row = figures.difference_row(np.zeros((2, 4, 4)), 300)
    assert (row.low, row.high) == (-300, 300)
    assert len(figures.montage({"error": row}).axes) == 3  # two slices and the bar


def test_translation_rows_show_both_directions_and_both_round_trips():
    torch.manual_seed(0)
    model = CycleGAN(Architecture(4, 4, 1, 1))
    ct, mri = torch.rand(2, 1, 32, 32) * 2 - 1, torch.rand(2, 1, 32, 32) * 2 - 1
    axes = figures.translation_rows(model, ct, mri).axes
    labels = [axis.get_ylabel() for axis in axes[::2]]
    assert labels == ["ct", "fake_mri", "cycled_ct", "mri", "fake_ct", "cycled_mri"]
    np.testing.assert_array_equal(axes[8].images[0].get_array(), model.translate(mri, "ct")[0, 0])


def test_first_look_draws_uncertainty_below_the_scans_with_a_colour_bar():
    flat = np.zeros((2, 8, 8))
    made = viewer.compare(flat, flat + 40, alt="two flat slices", uncertainty=flat + 60)
    figure = figures.first_look(made)
    assert [figure.axes[k].get_ylabel() for k in (0, 2, 4)] == ["real", "translated", "uncertainty"]
    drawn = figure.axes[4].images[0]
    assert drawn.get_clim() == (0, viewer.UNCERTAINTY_LIMIT_HU)
    assert (drawn.get_array() == 60).all() and drawn.get_cmap().name == "inferno"
    assert len(figure.axes) == 7 and figure.axes[6].get_ylabel() == "HU"  # the bar
    assert figure.axes[0].images[0].get_cmap().name == "gray"


def test_curves_smooth_by_the_running_mean():
    line = figures.curves({"loss": [0, 2, 4, 6]}, "step", "loss", smooth=2).axes[0].lines[0]
    assert line.get_xdata().tolist() == [2, 3, 4] and line.get_ydata().tolist() == [1, 3, 5]


def test_the_intervals_have_a_dot_and_a_bar_for_every_finite_mean():
    summaries = pd.DataFrame(
        [("one", 2.0, 1.0, 4.0), ("two", 4.0, 3.0, 5.0), ("three", np.inf, np.inf, np.inf)],
        columns=["method", "mean", "low", "high"],
    ).assign(metric="MAE HU")
    [panel] = figures.interval_plot(summaries, ["MAE HU"]).axes
    labels = [tick.get_text() for tick in panel.get_yticklabels()]
    assert labels == ["one", "two", "three"] and panel.yaxis_inverted()
    assert [tuple(line.get_xydata()[0]) for line in panel.lines] == [(2, 0), (4, 1)]
    bars = [tuple(bar.get_segments()[0].ravel()) for bar in panel.collections]
    assert bars == [(1, 0, 4, 0), (3, 1, 5, 1)]
    assert [(text.get_text(), text.get_position()[1]) for text in panel.texts] == [("infinite", 2)]
    for metrics in (["SSIM"], []):
        with pytest.raises(ValueError):
            figures.interval_plot(summaries, metrics)


def test_show_displays_a_picture(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    figures.show(figures.curves({"loss": [1, 2]}, "step", "loss"))
    data, _ = DisplayFormatter().format(shown[0])
    picture = data["image/png"]
    assert (picture if isinstance(picture, bytes) else base64.b64decode(picture))[1:4] == b"PNG"


def test_a_viewer_starts_with_its_first_window_and_spread_slices():
    ct_hu, mri = np.full((9, 4, 4), 40.0), np.arange(9 * 16.0).reshape(9, 4, 4)
    options = {"units": ("HU", "MR unit"), "names": ("CT", "MR")}
    figure = figures.first_look(viewer.compare(ct_hu, mri, alt="flat slices", **options))
    shown = [axis.images[0] for axis in figure.axes]
    titles = [axis.get_title() for axis in figure.axes[:4]]
    assert titles == ["slice 1", "slice 4", "slice 6", "slice 9"]
    assert [axis.get_ylabel() for axis in figure.axes[::4]] == ["CT", "MR"]
    assert shown[0].get_clim() == (0, 80)
    assert np.allclose(shown[4].get_clim(), np.percentile(mri, [0.5, 99.5]))
    assert np.allclose(shown[5].get_array(), mri[3], atol=143 / 4095)


def test_the_first_look_at_errors_is_at_the_worst():
    scores = pd.DataFrame(
        {"method": "net", "patient": list("01234"), "metric": "MAE HU", "value": [1, 5, 3, 2, 4]}
    )
    flat = np.zeros((5, 4, 4))
    made = viewer.error_explorer(
        scores, flat, flat + 9, "01234", method="net", metrics=["MAE HU"], alt="flat slices"
    )
    assert [axis.get_title() for axis in figures.first_look(made).axes[:4]] == ["1", "4", "2", "3"]


def test_the_first_look_at_ct_alone_is_in_the_brain_and_the_bone_window():
    brain, bone = figures.first_look(viewer.browse(np.zeros((4, 4)), alt="one slice")).axes
    assert [brain.get_ylabel(), bone.get_ylabel()] == ["brain", "bone"]
    assert [brain.images[0].get_clim(), bone.images[0].get_clim()] == [(0, 80), (-550, 1450)]


def test_ct_has_two_windows_and_grey_levels_have_none():
    ct = torch.zeros(2, 1, 8, 8)
    rows = figures.ct_windows("ct", ct, HU)
    assert list(rows) == ["ct,\nbrain", "ct,\nbone"]
    # 0 HU, between 0 and 80, and between -550 and 1450.
    limits = [(row.images.max(), row.low, row.high) for row in rows.values()]
    assert limits == [(0, 0, 80), (0, -550, 1450)]
    assert list(figures.ct_windows("ct", ct, GREY)) == ["ct"]
