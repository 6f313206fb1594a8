"""Every baseline, interval and test of `evaluation` against a second, literal computation.

What it promises; what it refuses.
"""

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch

from ctmri_utils import evaluation as ev
from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.evaluation import distances
from ctmri_utils.evaluation import metrics as m
from ctmri_utils.masks import ct_head_mask, mri_head_mask
from ctmri_utils.scans.datasets import load_scans, phantom_scans
from ctmri_utils.scans.phantom import synthetic_patients
from ctmri_utils.scans.physics import TISSUES
from ctmri_utils.scans.unpaired import Split
from ctmri_utils.settings import Architecture, settings_for
from ctmri_utils.units import GREY, HU, mri_scale

BLIND = [
    "constant",
    "another patient",
    "histogram matching",
    "linear regression",
    "lookup E[CT | MR]",
]
SEEING = ["true CT, 1 px off", "oracle labels"]


@cache
def scans():
    return phantom_scans(5, 6, 64, seed=3)


@cache
def pairs():
    return synthetic_patients(4, 64, seed=500)


@cache
def baselines():
    return ev.baselines(scans().train, pairs(), seed=0)


@cache
def scores():
    return ev.evaluate(baselines(), scans().test, scans().spacing_mm)


def perfect(split):
    return split.truth.ct_hu


def made_up(values, method="one", metric="MAE HU"):
    rows = [(method, f"patient {i}", metric, float(v)) for i, v in enumerate(values)]
    return pd.DataFrame(rows, columns=["method", "patient", "metric", "value"])


def unpaired(split):
    return replace(split, truth=None, paired=False)


def painted(mri, to_hu):
    """One slice, pixel by pixel."""
    head, ct_hu = mri_head_mask(mri), np.full(mri.shape, -1000.0)
    for place in np.argwhere(head):
        ct_hu[*place] = to_hu(mri[*place], mri[head])
    return ct_hu


def assert_paints(method, to_hu):
    """The first two test patients are enough; 1e-3 HU because the images are float32."""
    predicted = baselines()[method](scans().test)
    for i in range(2):
        np.testing.assert_allclose(
            predicted[i], painted(scans().test.mri[i, 0].numpy(), to_hu), atol=1e-3
        )


def training_pixels():
    """(MR, CT) of every pixel in the paired training heads, collected one by one."""
    for mri, ct_hu in zip(pairs().mri, pairs().ct_hu):
        mri = mri_scale(mri, mri_head_mask(mri)).to_network(mri)
        yield from (
            (float(mri[*place]), float(ct_hu[*place])) for place in np.argwhere(mri_head_mask(mri))
        )


def test_baselines_that_need_pairs_are_left_out_without_them():
    assert list(baselines()) == BLIND + SEEING
    assert list(ev.baselines(scans().train, None, seed=0)) == BLIND[:3] + SEEING


def test_constant_is_40_hu_in_the_head():
    assert_paints("constant", lambda mri, inside: 40)


def test_another_patient_is_a_training_ct_that_the_seed_chooses():
    training = HU.from_network(scans().train.ct[:, 0].numpy())
    predicted = baselines()["another patient"](scans().test)
    chosen = [
        [i for i, ct_hu in enumerate(training) if np.array_equal(ct_hu, one)] for one in predicted
    ]
    assert all(len(found) == 1 for found in chosen) and len({found[0] for found in chosen}) > 1
    np.testing.assert_array_equal(predicted, baselines()["another patient"](scans().test))
    others = [ev.baselines(scans().train, None, seed)["another patient"] for seed in (1, 2)]
    assert any((other(scans().test) != predicted).any() for other in others)


def test_histogram_matching_maps_ranks_to_training_quantiles():
    training = HU.from_network(scans().train.ct[:, 0].numpy())
    pool = np.concatenate([ct_hu[ct_head_mask(ct_hu)] for ct_hu in training]).astype(float)

    def to_hu(mri, inside):
        rank = (inside < mri).sum() + (inside == mri).sum() / 2
        return np.quantile(pool, rank / len(inside), method="hazen")

    assert_paints("histogram matching", to_hu)


def test_histogram_matching_depends_on_nothing_but_that_patient():
    test = scans().test
    alone = replace(unpaired(test), mri=test.mri[2:3], mri_patients=test.mri_patients[2:3])
    match = baselines()["histogram matching"]
    np.testing.assert_array_equal(match(alone)[0], match(test)[2])


def test_linear_regression_solves_the_normal_equations():
    mri, ct_hu = np.array(list(training_pixels())).T
    slope = ((mri - mri.mean()) * (ct_hu - ct_hu.mean())).sum() / ((mri - mri.mean()) ** 2).sum()
    assert_paints(
        "linear regression",
        lambda mri_value, inside: ct_hu.mean() + slope * (mri_value - mri.mean()),
    )


def test_lookup_is_the_mean_ct_of_each_of_64_bins():
    bins = {}
    for mri, ct_hu in training_pixels():
        bins.setdefault(min(int((mri + 1) * 32), 63), []).append(ct_hu)
    assert len(bins) == 64
    assert_paints(
        "lookup E[CT | MR]", lambda mri, inside: np.mean(bins[min(int((mri + 1) * 32), 63)])
    )


def test_bins_that_no_training_pixel_filled_lie_between_their_neighbours():
    test = scans().test
    two_greys = replace(
        test, mri=torch.where(test.mri > -0.5, 0.0, -1.0), truth=replace(test.truth, parameters=())
    )
    lookup = ev.baselines(scans().train, two_greys, seed=0)["lookup E[CT | MR]"]
    bins, levels = np.floor((test.mri[:, 0].numpy() + 1) * 32), lookup(unpaired(test))
    head = np.stack([mri_head_mask(scan) for scan in test.mri[:, 0].numpy()])
    dark, grey = (levels[head & (bins == b)].mean() for b in (0, 32))
    # a quarter of the way from bin 0 to bin 32; all float64
    between = head & (bins == 8)
    assert between.any() and dark != grey
    np.testing.assert_allclose(levels[between], 0.75 * dark + 0.25 * grey, rtol=1e-9)


def test_pairs_may_come_as_a_split_of_the_same_patients():
    mri = [mri_scale(scan, mri_head_mask(scan)).to_network(scan) for scan in pairs().mri]
    ct = HU.to_network(pairs().ct_hu)
    images = [torch.from_numpy(np.stack(stack))[:, None] for stack in (ct, mri)]
    split = Split(*images, *[tuple("abcd")] * 4, truth=pairs(), paired=True)

    from_split = ev.baselines(scans().train, split, seed=0)
    for method in BLIND[3:]:
        predicted = from_split[method](scans().test)
        np.testing.assert_array_equal(predicted, baselines()[method](scans().test))


def test_one_pixel_off_is_the_truth_one_column_to_the_right():
    true, shifted = perfect(scans().test), baselines()["true CT, 1 px off"](scans().test)
    np.testing.assert_array_equal(shifted[..., 1:], true[..., :-1])
    assert (shifted[..., 0] == -1000).all()


def test_oracle_paints_the_population_mean_of_every_tissue():
    predicted, labels = baselines()["oracle labels"](scans().test), scans().test.truth.labels
    for tissue in TISSUES.values():
        assert (predicted[labels == tissue.label] == tissue.hu).all()


def test_blind_predictors_see_nothing_but_the_mr():
    test = scans().test
    without_truth = replace(unpaired(test), ct=torch.zeros_like(test.ct))
    for method in BLIND:
        np.testing.assert_array_equal(baselines()[method](without_truth), baselines()[method](test))
    for method in SEEING:
        with pytest.raises(ValueError):
            baselines()[method](without_truth)


def test_translated_is_the_generators_output_in_hu():
    torch.manual_seed(0)
    model, mri = CycleGAN(Architecture(ngf=4, ndf=4, n_blocks=1, n_layers=2)), scans().test.mri
    predicted = ev.as_predictor(model, HU)(scans().test)
    with torch.no_grad():
        by_hand = model.G_mri2ct(mri)[:, 0].numpy() * 1000
    assert predicted.shape == (6, 64, 64)
    np.testing.assert_allclose(predicted, by_hand, atol=1e-2)  # float32 convolutions, up to 1000 HU


def test_every_value_is_its_metric_on_that_patients_slice():
    truth, mm = scans().test.truth, scans().spacing_mm
    predicted = baselines()["oracle labels"](scans().test)
    oracle = scores()[scores()["method"] == "oracle labels"]
    for i, patient in enumerate(scans().test.ct_patients):
        images = predicted[i], truth.ct_hu[i], truth.head[i]
        expected = {
            "MAE HU": m.mae_hu(*images),
            "bias HU": m.bias_hu(*images),
            "PSNR dB": m.psnr_db(*images, (-1024, 3000)),
            "SSIM": m.ssim(*images, (-1024, 3000)),
            "MS-SSIM": m.ms_ssim(*images, (-1024, 3071)),
            "air MAE HU": m.tissue_mae_hu(*images, "air"),
            "soft-tissue MAE HU": m.tissue_mae_hu(*images, "soft"),
            "bone MAE HU": m.tissue_mae_hu(*images, "bone"),
            "bone Dice": m.bone_dice(*images),
            "HD95 mm": distances.bone_hd95_mm(*images, mm),
            "WEPL mm": distances.wepl_error_mm(*images, mm),
        }
        rows = oracle[oracle["patient"] == patient]
        assert dict(zip(rows["metric"], rows["value"], strict=True)) == expected


def test_rows_are_tidy_one_for_each_method_patient_and_metric():
    expected = list(itertools.product(BLIND + SEEING, scans().test.ct_patients, ev.CT_METRICS))
    assert list(scores().columns) == ["method", "patient", "metric", "value"]
    assert list(scores()[["method", "patient", "metric"]].itertuples(index=False, name=None)) == (
        expected
    )


def test_a_perfect_prediction_is_perfect():
    best = {"PSNR dB": np.inf, "SSIM": 1, "MS-SSIM": 1, "bone Dice": 1}
    rows = ev.evaluate({"perfect": perfect}, scans().test, scans().spacing_mm)
    for row in rows.itertuples():
        # window sums in float64
        assert row.value == pytest.approx(best.get(row.metric, 0), abs=1e-9)


def test_a_constant_beats_histogram_matching_in_mae_but_finds_no_bone():
    means = scores().groupby(["metric", "method"])["value"].mean()
    mae, dice = means["MAE HU"], means["bone Dice"]
    assert mae["constant"] < mae["histogram matching"] - 50
    assert dice["constant"] == 0 < dice["histogram matching"]


def test_slices_of_a_patient_become_one_value_without_nan():
    patients = ("a", "a", "b", "b", "b", "c")
    test = replace(scans().test, ct_patients=patients, mri_patients=patients)
    levels = np.array([1.0, 3.0, 4.0, np.nan, 6.0, np.nan])
    counts = {"counts": lambda split: levels[:, None, None] * np.ones((6, 64, 64))}
    first_pixel = {"level": lambda pred, true, head, mm: pred[0, 0]}
    rows = ev.evaluate(counts, test, 1.0, first_pixel)
    assert list(rows["patient"]) == ["a", "b", "c"]
    np.testing.assert_array_equal(rows["value"], [2, 5, np.nan])


def test_a_refusal_names_the_slice_that_was_refused():
    test = replace(scans().test, ct_patients=("a",) * 6, mri_patients=("a",) * 6)
    ct_hu = perfect(test).copy()
    ct_hu[2, 5, 5] = np.nan
    place = rf"'mine' on slice 2 \({test.ct_names[2]}\) of patient a, MAE HU"
    with pytest.raises(ValueError, match=place):
        ev.evaluate({"mine": lambda split: ct_hu}, test, 1.0)


def test_a_patient_is_one_head_for_the_predictors_too():
    """One Otsu threshold for a patient's slices.

    The second slice at a tenth of the contrast changes the first one's head.
    """
    mri = scans().test.mri[:2].clone()
    mri[1] = (mri[1] + 1) / 10 - 1
    split = replace(scans().test, ct=scans().test.ct[:2], mri=mri, mri_patients=("a", "a"))
    scans_together = mri[:, 0].numpy()
    heads = baselines()["constant"](split) == 40
    np.testing.assert_array_equal(heads, mri_head_mask(scans_together))

    apart = baselines()["constant"](replace(split, mri_patients=("a", "b"))) == 40
    np.testing.assert_array_equal(apart, [mri_head_mask(scan) for scan in scans_together])


def test_the_table_says_what_is_missing():
    parts = [
        made_up([100, 110]),
        made_up([0.5, 0.7], metric="bone Dice"),
        made_up([90, np.nan], "a longer name"),
        made_up([np.nan, np.nan], "a longer name", "bone Dice"),
        made_up([2, 2], "alone", "SSIM"),
    ]
    rows = ev.summarise(pd.concat(parts), seed=0)
    shown = ev.score_table(rows, ["bone Dice", "MAE HU"])
    assert shown.to_dict("split") == {
        "index": ["one", "a longer name", "alone"],
        "columns": ["bone Dice", "MAE HU"],
        "data": [
            ["0.600 [0.500, 0.700]", "105.0 [100.0, 110.0]"],
            ["-", "90.0 n=1"],
            ["-", "-"],
        ],
    }
    assert ev.score_table(rows, ["SSIM"])["SSIM"]["alone"] == "2.00 [2.00, 2.00]"


def test_csv_keeps_every_digit(tmp_path):
    odd = made_up([1 / 3, 1e-300, np.inf, np.nan, -0.0], 'odd, "quoted" näme')
    compared = ev.compare_methods(scores(), "MAE HU", "constant")
    for table in (odd, scores(), ev.summarise(scores(), 0), compared):
        table.to_csv(tmp_path / "table.csv", index=False)
        again = pd.read_csv(tmp_path / "table.csv")
        pd.testing.assert_frame_equal(again, table, check_exact=True)
        assert again.map(repr).equals(table.map(repr))  # -0.0 too


@pytest.mark.parametrize(
    "change",
    [lambda ct: ct, lambda ct: 0.7 * ct - 0.2, lambda ct: ((ct + 1) * 127.5).round() / 127.5 - 1],
    ids=["copied", "rescaled", "8 bit"],
)
def test_a_planted_slice_is_found_in_both_modalities(change):
    train, test = scans().train, scans().test
    assert ev.shared_slices(train, test) == []
    ct, mri = train.ct.clone(), train.mri.clone()
    ct[3], mri[1] = change(test.ct[5]), change(test.mri[0])
    expected = [
        ("ct", train.ct_names[3], test.ct_names[5]),
        ("mri", train.mri_names[1], test.mri_names[0]),
    ]
    assert ev.shared_slices(replace(train, ct=ct, mri=mri), test) == expected


def test_neighbouring_slices_of_one_real_patient_are_no_copies():
    real = load_scans("scans", settings_for("laptop"), 0)
    assert ev.shared_slices(real.train, real.test) == []
    itself = [("ct", name, name) for name in real.train.ct_names]
    itself += [("mri", name, name) for name in real.train.mri_names]
    assert ev.shared_slices(real.train, real.train) == itself


def test_a_blank_slice_is_like_no_other():
    # whose float32 mean is not quite 0.3
    blank = replace(scans().test, ct=torch.full_like(scans().test.ct, 0.3))
    assert [found for found in ev.shared_slices(blank, blank) if found[0] == "ct"] == []


def returning(ct_hu):
    return lambda: ev.evaluate({"mine": lambda split: ct_hu}, scans().test, 1.0)


def fit_meets(method, pairs):
    """A fit on these pairs, applied to the test patients."""
    return lambda: ev.baselines(scans().train, pairs(), 0)[method](scans().test)


def other_patients_of_the_test_seed():
    return synthetic_patients(2, 64, scans().test.truth.parameters[0]["seed"])


def two_runs():
    return pd.concat([made_up([1, 2]), made_up([3, 4])])


def nobody_in_common():
    return pd.concat([made_up([1, 2]), made_up([np.nan, 1], "two")])


REFUSALS = {
    "unpaired": lambda: ev.evaluate({"p": perfect}, scans().train, 1.0),
    "no spacing": lambda: ev.evaluate({"p": perfect}, scans().test, None),
    "infinite spacing": lambda: ev.evaluate({"p": perfect}, scans().test, np.inf, {}),
    "shape": returning(np.zeros((6, 1, 64, 64))),
    "network range": lambda: returning(scans().test.mri[:, 0].numpy())(),
    "grey": lambda: ev.baselines(scans().train, None, 0, ct_scale=GREY),
    "grey model": lambda: ev.as_predictor(None, GREY),
    "unpaired pairs": lambda: ev.baselines(scans().train, scans().train, 0),
    "leak": fit_meets("linear regression", lambda: scans().test),
    "same seed": fit_meets("lookup E[CT | MR]", other_patients_of_the_test_seed),
    "one patient": lambda: ev.summarise(made_up([1]), 0),
    "no scores": lambda: ev.summarise(made_up([]), 0),
    "no resamples": lambda: ev.summarise(scores(), 0, resamples=0),
    "empty table": lambda: ev.score_table(ev.summarise(scores(), 0), []),
    "two runs, one name": lambda: ev.summarise(two_runs(), 0),
    "two runs compared": lambda: ev.compare_methods(two_runs(), "MAE HU", "one"),
    "metric": lambda: ev.compare_methods(scores(), "MAE", "constant"),
    "reference": lambda: ev.compare_methods(scores(), "MAE HU", "best"),
    "nobody in common": lambda: ev.compare_methods(nobody_in_common(), "MAE HU", "one"),
    "table": lambda: ev.score_table(ev.summarise(scores(), 0), ["FID"]),
    "sizes": lambda: ev.shared_slices(
        scans().test, replace(scans().test, ct=scans().test.ct[..., :32])
    ),
}


@pytest.mark.parametrize("attempt", REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_be_scored_is_refused(attempt):
    with pytest.raises(ValueError):
        attempt()
