"""Volumes scored as challenges do it, and the whole way from a challenge's files to a score."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from helpers.golden_volume import golden_volume
from helpers.hospital_files import ctmri, write_pairs, write_with_simple_itk

from ctmri_utils.evaluation import metrics as m
from ctmri_utils.evaluation.ct_metrics import CT_METRICS
from ctmri_utils.evaluation.volume_scores import score_volume
from ctmri_utils.volumes.evaluate import Case, axial_order, evaluate_cases, scored_region
from ctmri_utils.volumes.evaluation_files import COLUMNS
from ctmri_utils.volumes.nifti import write_nifti
from ctmri_utils.volumes.pairs import PairedVolumes
from ctmri_utils.volumes.scan_files import read_volume
from ctmri_utils.volumes.volume import Volume

PLACE = "1BA{:03d}/{}.nii.gz"


def test_the_challenges_golden_values_in_three_dimensions():
    scores = score_volume(*golden_volume(), (3.0, 1.0, 1.0))
    published = {
        "MAE HU": 18.439394,
        "PSNR dB": 45.089355,
        "SSIM": 0.994571,
        "PSNR 2025 dB": 45.241273,
        "MS-SSIM": 0.998820,
    }
    for name, value in published.items():
        assert scores[name] == pytest.approx(value, abs=6e-7)


def test_every_score_is_that_of_the_whole_volume():
    pred, true, mask = golden_volume()
    # The mask reaches two faces of the volume, so that no margin is left there.
    pred, true, mask = pred[8:], true[8:, :, :46], mask[8:, :, :46]
    pred = pred[:, :, :46]
    spacing = (3.0, 0.9, 1.1)
    scores = score_volume(pred, true, mask, spacing)
    for name, metric in CT_METRICS.items():
        whole = metric(pred, true, mask, spacing)
        assert scores[name] == pytest.approx(whole, rel=1e-9, nan_ok=True), name
    assert scores["PSNR 2025 dB"] == m.psnr_db(pred, true, mask, m.SYNTHRAD2025_RANGE)
    assert scores["bone bias HU"] == m.tissue_bias_hu(pred, true, mask, "bone")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthrad")
    write_pairs(root, PLACE, slices=7)
    return root


@pytest.fixture
def results(tmp_path, tree):
    """Synthetic CTs, worse from person to person: the true one with 10, 20 and 30 HU too much."""
    for k in (1, 2, 3):
        true = true_ct(tree, k)
        values = (true.values + 10 * k).astype(np.int16)
        write_with_simple_itk(values, true.affine, tmp_path / f"results/sCT_1BA{k:03d}.mha")
    return tmp_path / "results"


def true_ct(tree, k):
    return read_volume(tree / PLACE.format(k, "ct"), "ct")


def evaluate(tmp_path, *words):
    """The scores by method, patient and metric, or the exit status if it is not 0."""
    status = ctmri("evaluate", *words, "--output", tmp_path / "scores")
    return status or read_scores(tmp_path)


def read_scores(tmp_path):
    scores = pd.read_csv(tmp_path / "scores" / "scores.csv")
    return scores.set_index(["method", "patient", "metric"])["value"]


def read_metrics(tmp_path):
    return json.loads((tmp_path / "scores" / "metrics.json").read_text(encoding="utf-8"))


def test_people_find_each_other_by_name_and_the_worst_comes_first(tmp_path, tree, results, capsys):
    scores = evaluate(tmp_path, results, "--truth", tree, "--mask", tree)
    said = capsys.readouterr().out
    for k in (1, 2, 3):
        assert scores["synthetic CT", f"1BA{k:03d}", "MAE HU"] == pytest.approx(10 * k)
        assert scores["synthetic CT", f"1BA{k:03d}", "bias HU"] == pytest.approx(10 * k)
    assert "20.0 [10.0, 30.0]" in said or "20.00 [10.00, 30.00]" in said
    table = said[said.index("worst MAE first") :]
    assert table.index("1BA003") < table.index("1BA002") < table.index("1BA001")
    assert all(column in said for column in COLUMNS) and "no mask was given" not in said

    metrics = read_metrics(tmp_path)
    assert list(metrics) == ["results", "aggregates"]
    assert list(metrics["aggregates"])[:3] == ["mae", "psnr", "ms_ssim"]
    assert [round(one["mae"]) for one in metrics["results"]] == [10, 20, 30]
    assert metrics["aggregates"]["mae"] == pytest.approx(20)
    assert metrics["results"][0]["psnr"] == scores["synthetic CT", "1BA001", "PSNR 2025 dB"]


def test_the_mask_decides_and_without_one_the_head_is_scored_and_said(
    tmp_path, tree, results, capsys
):
    files = [results / "sCT_1BA001.mha", "--truth", tree / PLACE.format(1, "ct")]
    true = true_ct(tree, 1)
    values = true.values.copy()
    values[:32] += 100
    left = np.zeros(values.shape, np.uint8)
    left[:32] = true.values[:32] > -300
    write_with_simple_itk(values.astype(np.int16), true.affine, files[0])
    write_with_simple_itk(left, true.affine, tmp_path / "left.nrrd")
    scores = evaluate(tmp_path, *files, "--mask", tmp_path / "left.nrrd")
    assert scores["synthetic CT", "1BA001", "MAE HU"] == pytest.approx(100)
    # After four halvings, nothing of this mask is 3 voxels from the border.
    assert np.isnan(scores["synthetic CT", "1BA001", "MS-SSIM"])
    assert scores["synthetic CT", "1BA001", "SSIM"] > 0.9
    said = capsys.readouterr().out
    assert "note: 1BA001: MS-SSIM is undefined" in said and "no mask was given" not in said

    scores = evaluate(tmp_path, *files)
    assert 40 < scores["synthetic CT", "1BA001", "MAE HU"] < 60
    said = capsys.readouterr().out
    assert "note: 1BA001: no mask was given, so the head in the true CT was scored" in said
    assert "[" not in said.partition("worst MAE first")[2]


def test_infinite_and_undefined_scores_are_null_in_json(tmp_path, tree, results):
    true = true_ct(tree, 2)
    boneless = true.values.clip(max=200).astype(np.int16)
    write_with_simple_itk(boneless, true.affine, results / "sCT_1BA002.mha")
    scores = evaluate(tmp_path, results, "--truth", tree, "--mask", tree)
    assert scores["synthetic CT", "1BA002", "HD95 mm"] == np.inf
    metrics = read_metrics(tmp_path)
    results, means = metrics["results"], metrics["aggregates"]
    assert results[1]["bone_hd95"] is None and means["bone_hd95"] is None
    assert means["bone_dice"] == pytest.approx(np.mean([one["bone_dice"] for one in results]))


def test_another_grid_is_resampled_with_a_note(tmp_path, tree, results, capsys):
    image = sitk.ReadImage(str(results / "sCT_1BA002.mha"))
    grown = sitk.ConstantPad(image, [1, 1, 1], [1, 1, 1], -1000)
    sitk.WriteImage(grown, str(results / "sCT_1BA002.mha"))
    scores = evaluate(tmp_path, results, "--truth", tree, "--mask", tree)
    assert scores["synthetic CT", "1BA002", "MAE HU"] == pytest.approx(20, abs=0.01)
    said = capsys.readouterr().out
    assert "1BA002: the grids differ: it was resampled onto that of the true CT" in said


def test_baselines_stand_beside_it(tmp_path, tree, results, capsys):
    scores = evaluate(tmp_path, results, "--truth", tree, "--mask", tree, "--baselines")
    true, mask = (
        read_volume(tree / PLACE.format(1, name), kind).values.transpose(2, 1, 0)
        for name, kind in (("ct", "ct"), ("mask", "mri"))
    )
    constant = m.mae_hu(np.where(mask > 0, 40, -1000), true, mask)
    assert scores["constant", "1BA001", "MAE HU"] == pytest.approx(constant)
    shifted = m.mae_hu(np.roll(true, 1, axis=2), true, mask)
    assert scores["true CT, 1 px off", "1BA001", "MAE HU"] == pytest.approx(shifted)
    assert "true CT, 1 px off" in capsys.readouterr().out


def test_baselines_are_fitted_on_the_other_patients():
    mri = np.random.default_rng(0).uniform(0, 100, (24, 24, 24)).astype(np.float32)
    mask = Volume(np.ones_like(mri), np.eye(4), "mri")

    def case(name, slope):
        ct = Volume(slope * (mri - 50), np.eye(4), "ct")
        volumes = PairedVolumes(ct, Volume(mri, np.eye(4), "mri"), mask)
        return Case(name, lambda: volumes, lambda volumes: volumes.ct)

    # One patient's HU rise with the MR and the other's fall, so each fit has the wrong sign.
    scores = evaluate_cases([case("rising", 1), case("falling", -1)], baselines=True).scores
    fitted = scores[(scores["method"] == "linear regression") & (scores["metric"] == "MAE HU")]
    assert fitted["value"].tolist() == pytest.approx([50, 50], abs=1)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (1, 0, 2), (0, 2, 1)])
def test_axial_slices_come_first_however_a_file_stores_them(tree, order):
    volume = true_ct(tree, 1)
    affine = volume.affine[:, [*order, 3]]
    turned = type(volume)(volume.values.transpose(order), affine, "ct")
    found, spacing = axial_order(turned)
    np.testing.assert_array_equal(turned.values.transpose(found), volume.values.transpose(2, 1, 0))
    assert spacing == pytest.approx((10, 3.4375, 3.4375))

    # Without a mask the head is scored, which is found slice by slice.
    head, _ = scored_region(PairedVolumes(volume, None, None))
    turned_head, _ = scored_region(PairedVolumes(turned, None, None))
    np.testing.assert_array_equal(turned_head, head.transpose(order))


def test_the_page_shows_everybody(tmp_path, tree, results):
    evaluate(tmp_path, results, "--truth", tree, "--page")
    page = (tmp_path / "scores" / "page.html").read_text(encoding="utf-8")
    assert all(f"1BA00{k}" in page for k in (1, 2, 3)) and page.count("data-viewer>") >= 1
    assert "not for clinical use" in page and "PSNR 2025 dB" in page


@pytest.mark.parametrize("missing", ["true CT", "mask"])
def test_who_has_no_truth_or_mask_is_named_and_the_others_are_scored(
    tmp_path, tree, results, capsys, missing
):
    masks = shutil.copytree(tree, tmp_path / "masks")
    truth = shutil.copytree(tree, tmp_path / "truth")
    lacking, name = (truth, "ct") if missing == "true CT" else (masks, "mask")
    (lacking / PLACE.format(2, name)).unlink()

    assert evaluate(tmp_path, results, "--truth", truth, "--mask", masks) == 1
    said = capsys.readouterr()
    assert f"1BA002 is left out: {results / 'sCT_1BA002.mha'} has no {missing}: give" in said.out
    assert "1 of 3 people could not be scored" in said.err
    assert set(read_scores(tmp_path).index.unique("patient")) == {"1BA001", "1BA003"}

    for k in (1, 3):
        (results / f"sCT_1BA{k:03d}.mha").unlink()
    assert evaluate(tmp_path, results, "--truth", truth, "--mask", masks) == 1
    assert "nobody could be scored" in capsys.readouterr().err


def test_a_synthetic_mr_is_called_one(tmp_path, tree, results, capsys):
    true = true_ct(tree, 1)
    mri = replace(true, values=true.values + 1024, modality="mri", synthetic=True)
    write_nifti(mri, tmp_path / "made.nii.gz")
    files = [tmp_path / "made.nii.gz", "--truth", tree / PLACE.format(1, "ct")]
    assert evaluate(tmp_path, *files) == 1
    said = capsys.readouterr().out
    assert "made.nii.gz: its header says that it is a synthetic MR, not a CT" in said


def test_two_synthetic_cts_of_one_person_are_refused(tmp_path, tree, results, capsys):
    shutil.copy(results / "sCT_1BA001.mha", results / "sCT_1BA001_copy.mha")
    assert evaluate(tmp_path, results, "--truth", tree, "--mask", tree) == 1
    assert "seem to be two synthetic CTs of one person" in capsys.readouterr().err


def test_a_person_who_cannot_be_scored_is_left_out_and_the_others_are_not(
    tmp_path, tree, results, capsys
):
    (results / "sCT_1BA002.mha").write_bytes(b"x")
    assert evaluate(tmp_path, results, "--truth", tree, "--mask", tree) == 1
    said = capsys.readouterr()
    assert "1BA002 is left out: " in said.out and "sCT_1BA002.mha is damaged" in said.out
    assert "1 of 3 people could not be scored" in said.err
    assert set(read_scores(tmp_path).index.unique("patient")) == {"1BA001", "1BA003"}


def test_flags_that_do_not_fit_are_one_sentence(tmp_path, tree, capsys):
    assert evaluate(tmp_path, tree) == 2
    assert "give --truth, or --weights" in capsys.readouterr().err
    assert evaluate(tmp_path, tree, "--weights", "x", "--truth", tree) == 2
    assert "takes true CT and masks from the pairs" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["Task1/brain/1BA{:03d}/{}.nii.gz", "Task1/HN/1HNA{:03d}/{}.mha"])
def test_from_a_challenges_files_to_scores_without_a_manual_step(tmp_path, place, capsys):
    write_pairs(tmp_path / "data", place, people=2, slices=7)
    data, prepared, run, results = (tmp_path / name for name in ("data", "set", "run", "results"))
    small = "--ngf 4 --ndf 4 --n-blocks 1 --n-layers 2 --scans-size 32 --profile ci".split()

    assert ctmri("prepare", prepared, "--pairs", data, "--size", 32) == 0
    paired = ["--sampling", "paired", "--supervised", 10, "--steps", 3]
    assert ctmri("train", "--dataset", prepared, *paired, *small, "--output", run) == 0
    words = ["--weights", run, "--to", "ct", "--size", 32]
    assert ctmri("translate", data, results, *words) == 0
    by_files = evaluate(tmp_path, results, "--truth", data, "--mask", data)
    capsys.readouterr()

    by_weights = evaluate(tmp_path, data, "--weights", run, "--size", "32", "--baselines")
    assert "nobody scored here may have been in the training" in capsys.readouterr().out
    methods = ["synthetic CT", "constant", "true CT, 1 px off"]
    methods += ["linear regression", "lookup E[CT | MR]"]
    assert list(dict.fromkeys(by_weights.index.get_level_values("method"))) == methods
    for key, value in by_files.items():
        # The files hold whole numbers.
        assert np.isclose(by_weights[key], value, rtol=0.02, atol=0.02, equal_nan=True), key


def test_a_mask_deep_in_the_head_without_air_is_scored():
    pred, true, mask = golden_volume()
    true[14:34, 20:44, 18:38] = true[14:34, 20:44, 18:38].clip(20, 50)
    deep = np.zeros_like(mask)
    deep[20:28, 27:36, 24:32] = True
    scores = score_volume(pred, true, deep, (3.0, 1.0, 1.0))
    assert scores["MAE HU"] == pytest.approx(np.abs(pred - true)[deep].mean())


def test_true_cts_without_a_synthetic_one_are_named(tmp_path, tree, results, capsys):
    (results / "sCT_1BA002.mha").unlink()
    evaluate(tmp_path, results, "--truth", tree, "--mask", tree)
    said = capsys.readouterr().out
    assert "1 of 3 true CTs have no synthetic CT, so no score: 1BA002/ct.nii.gz" in said


def test_what_the_synthetic_ct_does_not_show_is_said(tmp_path, tree, results, capsys):
    true, mask = (tree / PLACE.format(1, name) for name in ("ct", "mask"))
    files = [results / "sCT_1BA001.mha", "--truth", true, "--mask", mask]
    volume, inside = read_volume(true, "ct"), read_volume(mask, "mri").values > 0

    write_with_simple_itk(volume.values[:, :, :4].astype(np.int16), volume.affine, files[0])
    evaluate(tmp_path, *files)
    beyond = inside[:, :, 4:].sum() / inside.sum()
    said = capsys.readouterr().out
    assert f"{beyond:.1%} of the scored region lies outside the synthetic CT" in said

    far = volume.affine.copy()
    far[:3, 3] += 1000
    write_with_simple_itk(volume.values.astype(np.int16), far, files[0])
    assert evaluate(tmp_path, *files) == 1
    assert "its synthetic CT does not cover" in capsys.readouterr().out


def test_odd_masks_and_a_windowed_truth_are_said(tmp_path, tree, results, capsys):
    true, mask = (tree / PLACE.format(1, name) for name in ("ct", "mask"))
    sct, odd = results / "sCT_1BA001.mha", tmp_path / "mask.nrrd"
    volume, inside = read_volume(true, "ct"), read_volume(mask, "mri").values > 0

    holes = np.where(inside, 1, np.nan).astype(np.float32)
    write_with_simple_itk(holes, volume.affine, odd)
    scores = evaluate(tmp_path, sct, "--truth", true, "--mask", odd)
    assert scores["synthetic CT", "1BA001", "soft-tissue MAE HU"] == pytest.approx(10)
    expected = evaluate(tmp_path, sct, "--truth", true, "--mask", mask)
    pd.testing.assert_series_equal(scores, expected)
    assert "the mask: " in capsys.readouterr().out

    far = volume.affine.copy()
    far[:3, 3] += 1000
    write_with_simple_itk(inside.astype(np.uint8), far, odd)
    assert evaluate(tmp_path, sct, "--truth", true, "--mask", odd) == 1
    assert "its mask lies outside the true CT" in capsys.readouterr().out

    window = volume.values.clip(-100, 300).astype(np.int16)
    write_with_simple_itk(window, volume.affine, tmp_path / "ct.nrrd")
    evaluate(tmp_path, sct, "--truth", tmp_path / "ct.nrrd", "--mask", mask)
    assert "the true CT shows no air, with values of -100 to 300 HU" in capsys.readouterr().out
