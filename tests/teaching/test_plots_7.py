"""What lesson 7's tables say of results, checked by hand."""

import numpy as np
import pandas as pd
import pytest

from ctmri_utils.runs import studies
from ctmri_utils.teaching import plots_7


def results(**values):
    """Results of measures given as {row: one value for each seed}."""
    lines = [
        (row, seed, measure.replace("_", " "), value)
        for measure, rows in values.items()
        for row, of_seeds in rows.items()
        for seed, value in enumerate(of_seeds, 1)
    ]
    return pd.DataFrame(lines, columns=["row", "seed", "measure", "value"])


RATES = results(
    MAE_HU={"z": [50, 54], "a": [90, 92]},
    lesion_contrast={"z": [1.5, 2.5], "a": [0.0, 0.1]},
    lesion_TPR={"z": [1.0, 0.8], "a": [0.1, 0.2]},
    lesion_FPR={"z": [0.9, 0.5], "a": [0.1, 0.0]},
)


def test_the_gap_is_the_difference_of_the_rates_seed_by_seed():
    gaps = plots_7.with_gap(RATES).query("measure == 'TPR - FPR'")
    assert gaps["row"].tolist() == ["z", "z", "a", "a"]
    assert gaps["value"].tolist() == pytest.approx([0.1, 0.3, 0.0, 0.2])


def test_rows_of_contrast_stand_in_the_order_of_their_error():
    [axis] = plots_7.contrast_by_error(RATES).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["z: 52 HU", "a: 91 HU"]
    dots = [line.get_xdata() for line in axis.lines if line.get_marker() == "o"]
    assert [list(dot) for dot in dots] == [[1.5, 2.5], [0.0, 0.1]]


def test_the_widest_gap_stands_on_top():
    summaries = plots_7.studies.over_seeds(RATES)
    [axis] = plots_7.detector_rates(summaries).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["z", "a"]
    assert [text.get_text() for text in axis.texts] == ["+0.20", "+0.10"]


def test_verdicts_follow_the_interval_and_not_the_mean():
    differences = pd.DataFrame(
        {
            "method": ["clear", "wide", "harm"],
            "metric": "MAE HU",
            "mean": [-5.0, -9.0, 4.0],
            "low": [-6.0, -20.0, 1.0],
            "high": [-4.0, 2.0, 7.0],
        }
    )
    [axis] = plots_7.verdicts(differences, ["MAE HU"]).axes
    found = {text.get_position()[1]: text.get_text() for text in axis.texts}
    assert found == {0: "better", 2: "worse"}


def test_few_pairs_are_the_yardstick():
    errors = {"5 pairs": [60.0, 62.0], "25 pairs": [50.0, 52.0], "unpaired": [80.0, 82.5]}
    errors |= {"unpaired, then 5 pairs": [61.0, 60.0], "unpaired, then 25 pairs": [40.0, 42.1]}
    table = plots_7.against_few_pairs(results(MAE_HU=errors))
    assert table.loc["unpaired, against 5 pairs", "mean"] == pytest.approx(20.2)
    assert table["verdict"].tolist() == ["worse", "cannot be told apart", "worse", "better"]


def test_fifths_are_of_equal_size_and_ordered():
    expected = np.array([9.0, 1, 5, 3, 7, 10, 2, 6, 4, 8])
    table = plots_7.fifths(expected, 2 * expected)
    assert table["expected HU"].tolist() == [1.5, 3.5, 5.5, 7.5, 9.5]
    assert table["found HU"].tolist() == [3, 7, 11, 15, 19]


def test_baselines_are_measured_on_the_patients_of_the_row():
    row = studies.read_study("remedies", "ci")["reference"]
    table = plots_7.baseline_results(row, [1]).set_index(["row", "measure"])["value"]
    assert table[plots_7.TRUE_CT, "MAE HU"] == 0
    assert table[plots_7.TRUE_CT, "lesion contrast"] == pytest.approx(1, abs=0.2)
    assert table["constant", "lesion contrast"] == 0 < table["constant", "MAE HU"]


def test_changed_settings_name_the_change_and_nothing_else():
    rows = studies.read_study("remedies")
    lines = plots_7.changed_settings(rows).splitlines()
    assert lines[0].split() == ["reference"]
    assert lines[2].split(maxsplit=1) == ["MIND", "mind = 5"]
