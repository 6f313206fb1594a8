"""A manifest says which CT and MR slices are pairs; nothing else makes them pairs."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ctmri_utils import evaluation as ev
from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.cyclegan.training import fit
from ctmri_utils.runs.page import viewers
from ctmri_utils.scans.folders import folder_scans
from ctmri_utils.scans.phantom import synthetic_patients
from ctmri_utils.scans.slices import FOLDERS
from ctmri_utils.settings import Architecture, Objective, Training

SMALL = Architecture(ngf=4, ndf=4, n_blocks=1, n_layers=2)


def make_set(folder, ct_unit="HU", paired=True, people=4):
    """A folder of phantoms, two slices each; file names say nothing about pairs. Its rows."""
    patients = synthetic_patients(people, 32, 7, slices=2)
    rows = []
    for k in range(people):
        side = "test" if k >= people - 2 else "train"
        for z in range(2):
            for modality, image in (("ct", patients.ct_hu[k, z]), ("mri", patients.mri[k, z])):
                # The MR of the same pair comes at another place in the alphabet.
                number = k if modality == "ct" else 9 - k
                name = f"{FOLDERS[side, modality]}/{modality}{number}{z}.png"
                offset = -1024 if modality == "ct" else 0
                unit = ct_unit if modality == "ct" else "MR unit"
                values = np.rint(image - offset).clip(0, 65535).astype(np.uint16)
                if ct_unit == "grey level" and modality == "ct":
                    values, offset = (values / 20).clip(0, 255).astype(np.uint8), 0
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(folder / name)
                row = {"file": name, "patient": f"p{k}", "unit": unit, "gain": 1, "offset": offset}
                row |= {"spacing_mm": 7, "z_mm": z}
                rows.append(row | ({"pair": f"{k}-{z}"} if paired else {}))
    write_rows(folder, rows)
    return rows


def write_rows(folder, rows):
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    make_set(folder)
    return folder_scans(folder, 32)


def test_each_mr_stands_where_its_ct_stands(pairs):
    patients = synthetic_patients(4, 32, 7, slices=2)
    for split, first in ((pairs.train, 0), (pairs.test, 2)):
        assert split.paired and split.ct_patients == split.mri_patients
        assert split.positions[0] == split.positions[1]
        for i, name in enumerate(split.ct_names):
            k, z = int(name[2]), int(name[3])
            assert split.mri_names[i] == f"mri{9 - k}{z}" and k >= first
            # The truth keeps what the scale of the networks clips.
            expected = np.rint(patients.ct_hu[k, z])
            np.testing.assert_allclose(split.truth.ct_hu[i], expected, atol=1e-3)
            mri = pairs.mri_scales[f"p{k}"].from_network(split.mri[i, 0].numpy())
            inside = split.mri[i, 0].numpy() < 1
            expected = np.rint(patients.mri[k, z])
            np.testing.assert_allclose(mri[inside], expected[inside].clip(mri.min()), atol=0.1)
    assert pairs.test.truth.ct_hu.max() > 1000 and "paired, with truth" in repr(pairs.test)


def test_without_the_column_the_same_slices_are_unpaired(tmp_path):
    make_set(tmp_path, paired=False)
    scans = folder_scans(tmp_path, 32)
    assert not scans.train.paired and scans.test.truth is None
    with pytest.raises(ValueError, match="different people"):
        ev.evaluate({"constant": lambda split: None}, scans.test, 7)
    with pytest.raises(ValueError, match="needs CT and MR of the same slices"):
        fit(CycleGAN(SMALL), scans.train, Training(sampling="paired", steps=1), seed=0)


def test_pairs_are_trained_on_and_scored_like_the_phantom(pairs):
    torch.manual_seed(0)
    model = CycleGAN(SMALL, Objective(supervised=10.0))
    training = Training(sampling="paired", steps=2)
    losses = fit(model, pairs.train, training, seed=0)
    assert all(step["supervised"] > 0 for step in losses)

    methods = ev.baselines(pairs.train, pairs.train, seed=0)
    assert "linear regression" in methods and "oracle labels" not in methods
    methods["network"] = ev.as_predictor(model.eval(), pairs.ct_scale)
    metrics = {name: ev.CT_METRICS[name] for name in ("MAE HU", "bone Dice")}
    scores = ev.evaluate(methods, pairs.test, pairs.spacing_mm, metrics)
    assert set(scores["patient"]) == {"p2", "p3"} and scores["value"].notna().all()
    assert (ev.compare_methods(scores, "MAE HU", "constant")["n"] == 2).all()
    assert set(ev.summarise(scores, 0)["n"]) == {2}

    titles = list(viewers(model, pairs))
    assert titles[0] == "MR to CT against the truth, worst patient first"


def test_a_fit_refuses_the_people_it_was_made_on(pairs):
    methods = ev.baselines(pairs.train, pairs.train, seed=0)
    with pytest.raises(ValueError, match="p0"):
        methods["linear regression"](pairs.train)


def test_pairs_in_grey_levels_may_be_trained_on_but_not_scored(tmp_path):
    make_set(tmp_path, ct_unit="grey level")
    scans = folder_scans(tmp_path, 32)
    assert scans.train.paired and scans.train.truth is None
    fit(CycleGAN(SMALL), scans.train, Training(sampling="paired", steps=1), seed=0)
    with pytest.raises(ValueError, match="grey levels"):
        ev.evaluate({}, scans.test, 7)


def test_where_some_have_no_partner_the_side_is_unpaired_and_says_so(tmp_path):
    rows = make_set(tmp_path)
    for row in rows[:2]:
        row["pair"] = ""
    write_rows(tmp_path, rows)
    scans = folder_scans(tmp_path, 32)
    assert not scans.train.paired and scans.test.paired
    assert "3 of 4 CT and 4 MR slices in train have a pair, so it counts as unpaired" in scans.notes


def lose_partner(rows):
    rows[1]["pair"] = ""


def three(rows):
    rows[2]["pair"] = rows[0]["pair"]
    rows[3]["pair"] = ""


def two_cts(rows):
    rows[1]["pair"], rows[2]["pair"], rows[3]["pair"] = "", rows[0]["pair"], ""


def across_sides(rows):
    rows[0]["pair"], rows[-2]["pair"] = rows[-2]["pair"], rows[0]["pair"]


def two_patients(rows):
    rows[0]["pair"], rows[4]["pair"] = rows[4]["pair"], rows[0]["pair"]


def other_spacing(rows):
    for row in rows:
        row["spacing_mm"] = 7 if row["file"].startswith(("trainA", "testA")) else 3


@pytest.mark.parametrize(
    "spoil", [lose_partner, three, two_cts, across_sides, two_patients, other_spacing]
)
def test_what_is_no_pair_is_refused(tmp_path, spoil):
    rows = make_set(tmp_path)
    spoil(rows)
    write_rows(tmp_path, rows)
    with pytest.raises(ValueError, match="pair"):
        folder_scans(tmp_path, 32)
