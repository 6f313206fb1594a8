"""`ctmri page`: what a run is compared with, and what cannot be shown."""

import json
import re

import pytest
import torch
from helpers.fit_tensors import fit_tensors

from ctmri_utils.__main__ import main
from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.scans.datasets import load_scans
from ctmri_utils.settings import Architecture, settings_for
from ctmri_utils.units import HU


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A build folder with the checkpoints of runs of one step, one of them misnamed."""
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path))
    torch.manual_seed(0)
    model, images = CycleGAN(Architecture(4, 4, 1, 1)), torch.rand(2, 1, 32, 32) * 2 - 1
    for name in ("phantom-ci-3", "scans-ci-3", "nameless"):
        checkpoint = tmp_path / "runs" / name / "checkpoint.pt"
        fit_tensors(model, images, images, steps=1, batch_size=1, seed=3, checkpoint=checkpoint)
    return tmp_path / "runs"


def specs(path):
    text = path.read_text(encoding="utf-8")
    assert "not for clinical use" in text
    return [
        json.loads(found)["spec"]
        for found in re.findall(r'<script type="application/json">(.*?)</script>', text, re.S)
    ]


def test_a_phantom_run_is_compared_with_the_truth(runs, capsys):
    assert main(["page", "phantom-ci-3"]) == 0
    assert str(runs / "phantom-ci-3" / "page.html") in capsys.readouterr().out
    explorer, *others = specs(runs / "phantom-ci-3" / "page.html")
    assert explorer["table"]["columns"] == ["patient", "MAE HU", "bone Dice"]
    assert len(explorer["table"]["rows"]) == settings_for("ci").test_patients
    assert [[image["unit"] for image in spec["images"]] for spec in others] == [
        ["MR unit", "HU"],
        ["HU", "MR unit"],
        ["HU", "HU"],
        ["MR unit", "MR unit"],
    ]
    errors = [row["numbers"][0] for row in explorer["table"]["rows"]]
    assert errors == sorted(errors, reverse=True)


def test_an_unpaired_run_is_compared_with_its_input_only(runs, tmp_path):
    assert main(["page", str(runs / "scans-ci-3"), "--output", str(tmp_path / "here.html")]) == 0
    made = specs(tmp_path / "here.html")
    assert len(made) == 4 and not any("table" in spec for spec in made)
    scans = load_scans("scans", settings_for("ci"), 3)
    plane = made[2]["planes"][0]
    assert plane["labels"] == list(scans.test.ct_names)
    assert plane["mm"] == [scans.spacing_mm] * 2
    assert made[2]["images"][0]["unit"] == HU.unit
    # a picture before each
    assert (tmp_path / "here.html").read_text(encoding="utf-8").count("<img alt=") == 4


def test_a_run_of_another_name_is_known_by_its_settings(runs):
    (runs / "nameless" / "settings.toml").write_text(
        'profile = "ci"\ndataset = "phantom"\nseed = 3\n', encoding="utf-8"
    )
    assert main(["page", "nameless"]) == 0
    text = (runs / "nameless" / "page.html").read_text(encoding="utf-8")
    assert "CycleGAN on phantom, profile ci, seed 3" in text


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("nameless", "nameless has no settings.toml"),
        ("scans-ci-9", "scans-ci-9"),
        ("scans-ci-3 --dataset nowhere", "'nowhere'"),
        ("scans-ci-3 --output nowhere/page.html", "nowhere"),
    ],
)
def test_what_cannot_be_shown_is_named(runs, capsys, words, named):
    assert main(["page", *words.split()]) == 1
    assert named in capsys.readouterr().err
