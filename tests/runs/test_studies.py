"""Studies: their rows, patients, measures, runs, statistics and shipped tables."""

import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch

from ctmri_utils.__main__ import main
from ctmri_utils.machine import ONE_THREAD, data_folder
from ctmri_utils.runs import studies, study_runs
from ctmri_utils.runs.studies import COSTS, differences, over_seeds, patients_of, read_study
from ctmri_utils.runs.study_measures import measure_cycle, measure_translation
from ctmri_utils.runs.study_runs import run_row, run_study
from ctmri_utils.scans.datasets import phantom_scans
from ctmri_utils.settings import PROFILES
from ctmri_utils.teaching import plots_7

TINY = {"steps": 3, "patients": 12, "ngf": 4, "ndf": 4, "n_blocks": 1}
SMALL = TINY | {"size": 32, "test_patients": 4, "patients": 8}

# Studies whose tables come with the course.
NAMES = ("remedies", "failures", "polarity", "pairs", "recipe")
SHIPPED = sorted(path.stem for path in (data_folder() / "studies").glob("*.csv"))


def table_of(rows):
    """Results from tuples (row, seed, measure, value)."""
    return pd.DataFrame(rows, columns=["row", "seed", "measure", "value"])


def test_later_sources_of_a_row_win(monkeypatch):
    rows = {"plain": {}, "own": {"identity": 1, "ngf": 6}}
    study = {"every": {"steps": 7, "identity": 3, "ngf": 5}, "rows": rows}
    monkeypatch.setattr(studies, "STUDIES", {"one": study})

    plain, own = read_study("one", changes={"ngf": 9}).values()
    assert (plain.identity, own.identity) == (3, 1)
    for row in (plain, own):
        assert (row.steps, row.ngf, row.patients) == (7, 9, PROFILES["laptop"].patients)

    # The file's steps are the laptop's.
    ci = PROFILES["ci"]
    [own] = read_study("one", "ci", only=["own"]).values()
    assert (own.steps, own.ngf, own.size, own.identity) == (ci.phantom_steps, 6, ci.size, 1)
    assert read_study("one", "ci", {"steps": 2})["own"].steps == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"name": "cures"}, "'cures'.* remedies"),
        ({"profile": "tiny"}, "'tiny'.* laptop"),
        ({"changes": {"stepps": 3}}, "stepps.* steps"),
        ({"changes": {"lesion": "big"}}, "lesion='big'"),
        ({"only": ["SPIRIT"]}, "'SPIRIT'.* 'reference', 'lighter"),
    ],
)
def test_what_is_not_known_is_named_with_what_is(arguments, named):
    with pytest.raises(ValueError, match=named):
        read_study(**{"name": "remedies"} | arguments)


def test_the_command_says_first_how_many_hours_it_takes(capsys, monkeypatch):
    costs = [("MIND", seed, "CPU s per step", 2.0 * seed) for seed in (1, 2)]
    monkeypatch.setattr(study_runs, "run_study", lambda *_: None)
    monkeypatch.setattr(study_runs, "shipped_table", lambda name: table_of(costs))
    words = "study remedies --rows MIND CUT --seeds 5 6 7 -p steps 600"
    assert main(words.split()) == 0
    # 6 x 600 x 3 s
    printed = capsys.readouterr().out
    assert "6 training run(s)" in printed and "3.0 hours of one core" in printed


@pytest.mark.parametrize(
    ("study", "name"), [(study, name) for study in NAMES for name in read_study(study)]
)
def test_every_row_builds_and_trains(study, name):
    row = read_study(study, changes=SMALL | {"steps": 1}, only=[name])[name]
    row = replace(row, unpaired_steps=min(row.unpaired_steps, 1), pairs=min(row.pairs, 2))
    model, costs = studies.train_row(row, 1, patients_of(row, 1))
    assert costs["CPU s per step"] > 0
    assert all(weight.isfinite().all() for weight in model.generator_parameters)


def test_few_pairs_follow_an_unpaired_training(monkeypatch):
    row = read_study("pairs", changes=SMALL)["unpaired, then 5 pairs"]
    row = replace(row, pairs=2, steps=1, unpaired_steps=1)
    trained = []

    def fit(model, slices, training, **options):
        start = next(model.parameters()).detach().clone()
        real_fit(model, slices, training, **options)
        end = next(model.parameters()).detach().clone()
        trained.append((len(slices.ct), training.sampling, model.objective.supervised, start, end))

    real_fit = studies.fit
    monkeypatch.setattr(studies, "fit", fit)
    studies.train_row(row, 1, patients_of(row, 1))

    without, paired = trained
    assert without[:3] == (8, "random", 0) and paired[:3] == (2, "paired", 10)
    assert torch.equal(without[4], paired[3])


# ---- patients

ROW = read_study("remedies", changes=SMALL)["reference"]


def test_patients_bleed_as_often_as_the_row_says():
    def bleeding_in(ct, mri):
        return patients_of(replace(ROW, ct_lesions=ct, mri_lesions=mri), 2)

    plain = patients_of(replace(ROW, lesion="none", ct_lesions=0.0, mri_lesions=0.0), 2)
    in_mri, in_ct = bleeding_in(0.0, 1.0), bleeding_in(1.0, 0.0)
    assert torch.equal(in_mri.train.ct, plain.train.ct)
    assert torch.equal(in_ct.train.mri, plain.train.mri)
    assert not torch.equal(in_mri.train.mri, plain.train.mri)
    assert not torch.equal(in_ct.train.ct, plain.train.ct)

    bleeding = [int(scans.test.truth.lesion.any((1, 2)).sum()) for scans in (plain, in_mri, in_ct)]
    assert bleeding[0] == 0 < bleeding[1] == bleeding[2] < 4


def test_rows_share_their_test_patients_and_seeds_do_not():
    one, other = patients_of(ROW, 2), patients_of(replace(ROW, ct_lesions=1.0, ct_offset_px=3), 2)
    assert torch.equal(one.test.mri, other.test.mri)
    assert np.array_equal(one.test.truth.ct_hu, other.test.truth.ct_hu)
    assert not torch.equal(one.test.mri, patients_of(ROW, 3).test.mri)


def test_only_the_training_cts_lie_further_right():
    plain, moved = patients_of(ROW, 2), patients_of(replace(ROW, ct_offset_px=3), 2)
    assert torch.equal(moved.train.ct[..., 3:], plain.train.ct[..., :-3])
    assert (moved.train.ct[..., :3] == -1).all()
    assert torch.equal(moved.train.mri, plain.train.mri)
    assert torch.equal(moved.test.ct, plain.test.ct)


@pytest.fixture(scope="module")
def measured():
    """A function: the measures of a fake CT, made from the true ones of 12 patients.

    Half of them have a bleed.
    """
    changes = {"patients": 12, "test_patients": 12}
    scans = patients_of(read_study("remedies", "ci", changes)["reference"], 5)
    return lambda make: measure_translation(make(scans.test.truth.ct_hu.astype(float)), scans)


def test_the_truth_is_without_fault(measured):
    found = measured(lambda true: true)
    for name in ("MAE HU", "soft-tissue MAE HU", "bone MAE HU", "drift px", "inverted"):
        assert found[name] == 0
    # against the CT without noise
    assert found["bone Dice"] == 1 and found["lesion contrast"] == pytest.approx(1, abs=0.15)
    assert found["lesion TPR"] > found["lesion FPR"] and abs(found["KID"]) < 0.1


def test_each_fault_is_seen_by_its_measure(measured):
    assert measured(lambda true: true + 10)["MAE HU"] == pytest.approx(10)
    for axis, to_the_right in ((2, 2), (1, 0)):
        moved = measured(lambda true, axis=axis: np.roll(true, 2, axis))
        drift = (moved["drift px"], moved["drift to the right px"])
        assert drift == pytest.approx((2, to_the_right), abs=0.05)
    assert measured(lambda true: -true)["inverted"] == 1
    assert measured(lambda true: true.clip(max=200))["bone Dice"] == 0
    assert measured(lambda true: np.where(true > 50, 30, true))["lesion contrast"] < 0.5


@pytest.mark.filterwarnings("error")
def test_a_constant_translation_is_measured_without_warning(measured):
    columns = np.arange(64)
    flat = np.where((columns > 1) & (columns < 62), 40.0, -1000.0)
    assert measured(lambda true: flat + 0 * true)["inverted"] == 0


def test_a_copy_smuggles_the_field_and_an_honest_pair_does_not():
    # It is looked for in patients with a strong field.
    scans = phantom_scans(1, 10, PROFILES["ci"].size, 5, bias_percent=0)

    class Copy:
        def translate(self, images, to):
            return images

    class Honest:  # makes the same MR of whatever CT
        def translate(self, images, to):
            return images if to == "ct" else scans.test.mri[: len(images)] * 0

    copied = measure_cycle(Copy(), 5, scans)
    assert copied["honesty"] == 0 and copied["bias through the cycle"] > 0.9
    assert abs(copied["bias from true CT"]) < 0.5

    honest = measure_cycle(Honest(), 5, scans)
    assert honest["honesty"] == 1
    assert honest["bias through the cycle"] == honest["bias from true CT"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Rows, a folder, and what two processes found in it: two rows from two seeds."""
    rows = read_study("remedies", "ci", TINY, only=["reference", "lighter cycle and identity"])
    folder = tmp_path_factory.mktemp("study")
    return rows, folder, run_study(rows, (1, 2), folder, processes=2)


def without_costs(results):
    return results[~results["measure"].isin(COSTS)]


def test_digits_do_not_depend_on_processes_or_threads(finished, tmp_path, monkeypatch):
    rows, _, found = finished
    # NumPy's products then round differently.
    for name in ONE_THREAD:
        monkeypatch.setenv(name, "2")
    alone = run_study(rows, (1, 2), tmp_path)
    assert {os.environ[name] for name in ONE_THREAD} == {"2"}
    pd.testing.assert_frame_equal(without_costs(alone), without_costs(found), check_exact=True)

    # Rows and seeds do differ.
    assert not found.duplicated(["row", "seed", "measure"]).any()
    assert found.loc[found["measure"] == "MAE HU", "value"].nunique() == 4
    costs = found.loc[found["measure"].isin(COSTS), "value"]
    assert len(costs) == 8 and np.isfinite(costs).all() and (costs > 0).all()


def test_the_table_holds_every_digit(finished, monkeypatch):
    _, folder, found = finished
    (folder / "studies").mkdir()
    (folder / "studies" / "mine.csv").write_bytes((folder / "table.csv").read_bytes())
    monkeypatch.setattr(studies, "data_folder", lambda: folder)
    pd.testing.assert_frame_equal(studies.shipped_table("mine"), found, check_exact=True)


def test_what_is_done_is_read_and_not_trained_again(finished, monkeypatch):
    rows, folder, found = finished
    # A training would fail.
    monkeypatch.setattr(study_runs, "train_row", None)
    for (name, seed), lines in found.groupby(["row", "seed"]):
        again = run_row(name, rows[name], seed, folder)
        assert again == dict(zip(lines["measure"], lines["value"], strict=True))


def test_other_settings_are_refused_and_nothing_is_lost(finished):
    rows, folder, _ = finished
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(ValueError, match=r"reference-1\.json .* steps, ngf"):
        run_row("reference", replace(rows["reference"], steps=9, ngf=5), 1, folder)
    assert before == sorted(path.name for path in folder.iterdir())
    kept = json.loads((folder / "reference-1.json").read_text())
    assert kept["settings"] == asdict(rows["reference"])


def test_a_stopped_training_goes_on_to_the_same_digits(finished, tmp_path, monkeypatch):
    row = finished[0]["reference"]
    torch.manual_seed(123)  # whatever went before
    whole = run_row("reference", row, 1, tmp_path / "whole")
    steps, fit = [], studies.fit

    def stopping(*args, on_step, **options):
        def stop(step, losses):
            steps.append(step)
            if steps == [1, 2]:
                raise KeyboardInterrupt
            on_step(step, losses)

        return fit(*args, on_step=stop, **options)

    monkeypatch.setattr(studies, "fit", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_row("reference", row, 1, tmp_path)
    assert not list(tmp_path.glob("*.json"))
    resumed = run_row("reference", row, 1, tmp_path)
    assert steps == [1, 2, 3]
    assert resumed.items() - whole.items() == {(name, resumed[name]) for name in COSTS}


def test_an_interrupt_starts_no_further_row(monkeypatch, tmp_path):
    class Threads(ThreadPoolExecutor):
        def __init__(self, processes, context, **options):
            super().__init__(processes)

    def run(name, row, seed, folder):
        begun.append((name, seed))
        assert {os.environ[variable] for variable in ONE_THREAD} == {"1"}
        if len(begun) == 3:
            raise KeyboardInterrupt
        return {"MAE HU": 1, COSTS[0]: 1}

    begun = []
    monkeypatch.setattr(study_runs, "ProcessPoolExecutor", Threads)
    monkeypatch.setattr(study_runs, "run_row", run)
    rows = dict.fromkeys("abc", replace(ROW, patients=10, test_patients=10))
    with pytest.raises(KeyboardInterrupt):
        run_study(rows, range(100), tmp_path)
    assert begun == [("a", 0), ("b", 0), ("c", 0)]


def results_of(**values):
    """Results of "MAE HU" of rows, a value for each seed."""
    rows = []
    for name, of_seeds in values.items():
        rows += [(name, seed, "MAE HU", value) for seed, value in enumerate(of_seeds, 1)]
    return table_of(rows)


def test_the_interval_of_a_share_ends_at_0_and_1():
    """Differences of shares may be negative, and other measures above 1."""
    rates = []
    for measure in ("lesion FPR", "honesty"):
        rates += [("a", seed, measure, value) for seed, value in enumerate((0.1, 0.2, 1.0))]
    found = over_seeds(table_of(rates)).set_index("metric")
    assert (found.loc["lesion FPR", "low"], found.loc["lesion FPR", "high"]) == (0, 1)
    assert found.loc["honesty", "low"] < 0 and found.loc["honesty", "high"] > 1
    assert found["mean"].tolist() == pytest.approx([1.3 / 3] * 2)

    none = [("b", seed, "lesion FPR", 0.0) for seed in range(3)]
    apart = differences(table_of([*rates, *none]), "a")
    assert apart["low"].item() < -1


def test_means_over_seeds_have_the_interval_of_student():
    """80, 84, 91: mean 85, SD sqrt((25 + 1 + 36) / 2).

    T of 2 degrees of freedom from a printed table, 4.3027.
    """
    [found] = over_seeds(results_of(a=(80, 84, 91))).itertuples(index=False)
    half = 4.3027 * math.sqrt(31) / math.sqrt(3)
    assert found[:3] == ("a", "MAE HU", 85) and found.n == 3
    assert (found.low, found.high) == pytest.approx((85 - half, 85 + half), abs=1e-3)


def test_differences_are_taken_seed_by_seed():
    results = results_of(reference=(80, 90, 130), shifted=(78, 87, 129), alone=(1, 2))
    further = table_of([("shifted", 9, "MAE HU", 1e6)])
    results = pd.concat([results, further])
    shifted, alone = differences(results, "reference").itertuples()
    half = 4.3027 * 1 / math.sqrt(3)  # of -2, -3 and -1
    assert (shifted.method, shifted.mean, shifted.n) == ("shifted", -2, 3)
    assert (shifted.low, shifted.high) == pytest.approx((-2 - half, -2 + half), abs=1e-3)
    assert (alone.mean, alone.n) == (np.mean([-79, -88]), 2)
    backwards = differences(results[::-1], "reference").set_index("method")
    assert backwards["mean"]["shifted"] == -2
    with pytest.raises(ValueError, match="'nobody'.* reference"):
        differences(results, "nobody")


def test_nan_is_left_out_and_one_value_has_no_interval():
    [two], [one], [none] = (
        over_seeds(results_of(a=values)).itertuples()
        for values in ((1, math.nan, 3), (5, math.nan), (math.nan,))
    )
    # t 12.706, SD sqrt(2)
    assert (two.mean, two.n) == (2, 2) and two.high - two.mean == pytest.approx(12.706, abs=1e-3)
    assert (one.mean, one.n) == (5, 1) and math.isnan(one.low) and math.isnan(one.high)
    assert none.n == 0 and math.isnan(none.mean)


def test_there_are_tables():
    assert set(SHIPPED) == {*NAMES, "confirmation"}


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_table_is_whole(name):
    """Every row of the study and no other, each measure once for each of three seeds or more."""
    results = studies.shipped_table(name)
    rows, seeds, measures = (results[column].unique() for column in ("row", "seed", "measure"))
    assert list(rows) == list(read_study(name)) and len(seeds) >= 3
    assert {"MAE HU", "bone Dice", "honesty", "KID", *COSTS} <= set(measures)
    assert not results.duplicated(["row", "seed", "measure"]).any()
    assert len(results) == len(rows) * len(seeds) * len(measures)
    assert np.isfinite(results["value"]).all()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_table_is_what_a_study_writes(name):
    written = studies.shipped_table(name).to_csv(index=False, lineterminator="\r\n")
    assert written.encode() == studies.shipped_table_file(name).read_bytes()


def test_the_laptop_profile_has_the_confirmed_recipe():
    """Lesson 07's rule, on seeds that had no part in choosing the candidates."""
    fresh, rows = studies.shipped_table("confirmation"), read_study("remedies")
    assert not set(fresh["seed"]) & set(studies.shipped_table("remedies")["seed"])
    assert set(fresh["row"]) < rows.keys() and np.isfinite(fresh["value"]).all()
    [best] = set(fresh["row"]) - {"reference"}

    # The error is lower, and the detector of bleeds tells no less.
    changes = differences(plots_7.with_gap(fresh), "reference").set_index(["method", "metric"])
    assert changes["high"][best, "MAE HU"] < 0 <= changes["mean"][best, "TPR - FPR"]
    laptop = PROFILES["laptop"]
    assert (rows[best].objective, rows[best].ct_map) == (laptop.objective, laptop.ct_map)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--seeds 1 1", "[1, 1]"),
        ("--seeds -1", "[-1]"),
        ("--processes 0", "at least one process"),
        ("-p patients 8", "patients=8"),
        ("-p test_patients 8", "test_patients=8"),
        ("--rows mend", "'mend'"),
    ],
)
def test_what_no_study_can_be_is_refused_before_any_training(tmp_path, capsys, words, named):
    command = ["study", "remedies", "--profile", "ci", "--output", str(tmp_path / "out")]
    assert main([*command, *words.split()]) == 1
    assert named in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ['{"settings": {', "{}", "[1]", ""])
def test_a_damaged_result_is_named(tmp_path, content):
    (tmp_path / "reference-1.json").write_text(content)
    with pytest.raises(ValueError, match=r"reference-1\.json"):
        run_row("reference", ROW, 1, tmp_path)


def test_a_row_that_fails_is_named_and_does_not_stop_the_others(tmp_path, capsys):
    changes = SMALL | {"steps": 1, "test_patients": 10, "patients": 10}
    rows = read_study("remedies", "ci", changes, only=["reference", "L1 (pairs)"])
    rows["reference"] = replace(rows["reference"], ct_map="two_windows")
    with pytest.raises(ValueError, match="row 'reference', seed 1: identity=5"):
        run_study(rows, [1], tmp_path)
    assert (tmp_path / "L1-pairs-1.json").is_file() and not (tmp_path / "table.csv").exists()
    assert "L1 (pairs), seed 1: MAE" in capsys.readouterr().out
