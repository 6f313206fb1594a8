"""Weights carry their contract: in .safetensors, in checkpoints, and through trainings."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ctmri_utils.cyclegan.model import CycleGAN, Translator
from ctmri_utils.runs import (
    Contract,
    contract_for,
    load_translator,
    save_weights,
    settings_for_scans,
    sized_for,
)
from ctmri_utils.runs.train import train
from ctmri_utils.scans import phantom_scans
from ctmri_utils.settings import PRESETS, PROFILES, Architecture
from ctmri_utils.units import GREY

SMALL = Architecture(ngf=4, ndf=4, n_blocks=1, n_layers=1)
CONTRACT = Contract(
    96,
    7 / 3,
    "zwei Köpfe",
    unseen="a third",
    preset="heads",
    revision="1a2b",
    seed=7,
    steps=9,
)


def weights_with(path, contract):
    """Untrained weights in a file, which know slices of this kind."""
    model = Translator(SMALL)
    model.contract = contract
    save_weights(model, path)
    return path


def test_weights_bring_their_contract_back(tmp_path):
    path = weights_with(tmp_path / "pair.safetensors", CONTRACT)
    assert load_translator(path).contract == CONTRACT

    # Saved again, they keep it.
    save_weights(load_translator(path), path)
    assert load_translator(path).contract == CONTRACT


def test_the_contract_is_plain_json(tmp_path):
    path = weights_with(tmp_path / "pair.safetensors", CONTRACT)
    with safe_open(path, "pt") as file:
        [card] = file.metadata().values()
    expected = asdict(CONTRACT) | {"mri_percentiles": [0.5, 99.5], "makes": ["ct", "mri"]}
    assert json.loads(card)["contract"] == expected


def test_a_file_older_than_contracts_loads_without_one(tmp_path):
    path = weights_with(tmp_path / "old.safetensors", None)
    card = json.dumps({"architecture": asdict(SMALL), "about": {"steps": 3}})
    save_file(load_file(path), path, {"card": card})
    assert load_translator(path).contract is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"colour": "red"}, "colour"),
        ({"size": None}, "cannot be read"),
        ({"size": 0}, "0 pixels"),
        ({"pixel_mm": -1.0}, "-1.0 mm"),
        ({"mri_percentiles": [1, 99]}, "percentiles"),
        ({"ct_unit": "kelvin"}, "1000.0 kelvin"),
        ({"ct_low": -500.0}, "CT from -500.0"),
        ({"ct_low": 2000.0}, "low < high"),
        ({"makes": []}, "makes?"),
        ({"makes": ["pet"]}, "pet"),
        ({"ct_map": "log"}, "'log'"),
        ({"ct_map": "piecewise"}, "the networks have 'linear'"),
    ],
)
def test_a_contract_that_cannot_be_is_refused_with_its_file(tmp_path, change, named):
    path = weights_with(tmp_path / "pair.safetensors", None)
    card = {"architecture": asdict(SMALL), "contract": asdict(CONTRACT) | change}
    save_file(load_file(path), path, {"card": json.dumps(card)})
    with pytest.raises(ValueError, match=f"pair.safetensors .*{named}"):
        load_translator(path)


def test_weights_are_not_saved_under_another_map(tmp_path):
    with pytest.raises(ValueError):
        weights_with(tmp_path / "a", replace(CONTRACT, ct_map="piecewise"))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps with the preset `heads`."""
    changes = {"profile": "ci", "dataset": "phantom", "steps": 2, "seed": 5, "patients": 4}
    changes |= {"test_patients": 2, "ngf": 4, "ndf": 4, "n_blocks": 1, "preset": "heads"}
    return train(output=tmp_path_factory.mktemp("runs") / "run", changes=changes)


def test_a_training_keeps_its_contract_in_the_checkpoint(run):
    contract = load_translator(run).contract
    assert (contract.size, contract.seed, contract.steps) == (64, 5, 2)
    assert contract.pixel_mm == pytest.approx(220 / 64)
    assert (contract.ct_map, contract.preset) == ("piecewise", "heads")
    assert contract.data == "phantom, 4 CT and 4 MR slices" and contract.revision


def test_a_checkpoint_older_than_contracts_loads_and_resumes(run, tmp_path):
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    assert state.pop("contract")["steps"] == 2
    torch.save(state, tmp_path / "checkpoint.pt")
    model = load_translator(tmp_path)
    assert isinstance(model, CycleGAN) and model.contract is None


def test_the_contract_of_a_data_set_is_what_the_set_says():
    scans = phantom_scans(2, 1, 32, 1)
    settings = replace(PROFILES["ci"], **PRESETS["heads"])
    assert contract_for(scans, settings, 1, 2).ct_scale == scans.ct_scale

    data = contract_for(scans, settings, 1, 2, "/data/weights/heads.safetensors").data
    assert data == "phantom, 2 CT and 2 MR slices, starting from weights/heads.safetensors"

    pictures = replace(scans, ct_scale=GREY, spacing_mm=None)
    contract = contract_for(pictures, PROFILES["ci"], 1, 2)
    assert contract.ct_scale == GREY and contract.pixel_mm is None


def test_what_contradicts_a_contract_is_refused():
    CONTRACT.check_slices(None, None)
    CONTRACT.check_slices(96, 2.333)
    replace(CONTRACT, pixel_mm=None).check_slices(96, 5.0)
    with pytest.raises(ValueError, match="size 128"):
        CONTRACT.check_slices(128, None)
    with pytest.raises(ValueError, match="1.75 mm"):
        CONTRACT.check_slices(None, 1.75)


def test_lessons_draw_slices_of_the_size_that_a_model_knows():
    model = Translator(SMALL)
    settings = PROFILES["ci"]
    assert sized_for(model, settings) == settings
    model.contract = CONTRACT
    assert sized_for(model, settings) == replace(settings, size=96, scans_size=96)


def test_only_hu_are_seen_through_a_ct_map_and_have_a_mask_loss():
    scans = phantom_scans(2, 1, 32, 1)
    settings = replace(PROFILES["ci"], ct_map="piecewise")
    assert settings_for_scans(settings, scans) == settings
    grey = replace(scans, ct_scale=GREY)
    assert settings_for_scans(settings, grey) == replace(settings, ct_map="linear")
    assert settings_for_scans(replace(settings, mask=10), scans).mask == 10
    with pytest.raises(ValueError, match="mask=10"):
        settings_for_scans(replace(settings, mask=10), grey)
