"""Files of version 0.1 still load, and an old run is resumed.

checkpoint-0.1.pt was saved by revision 2a67a93 after 3 of 6 steps.
"""

import shutil
from pathlib import Path

import pytest
import torch

from ctmri_utils import Architecture, CycleGAN, Objective, Training, fit, phantom_scans
from ctmri_utils.cyclegan import load_checkpoint
from ctmri_utils.runs import load_translator

OLD = Path(__file__).with_name("checkpoint-0.1.pt")


def test_an_old_run_is_resumed(tmp_path):
    checkpoint = tmp_path / "checkpoint.pt"
    shutil.copy(OLD, checkpoint)
    torch.manual_seed(99)
    model = CycleGAN(Architecture(ngf=2, ndf=2, n_blocks=1, n_layers=1), Objective(pool_size=2))
    scans = phantom_scans(4, 2, 32, seed=7)
    losses = fit(model, scans.train, Training(steps=6), seed=5, checkpoint=checkpoint)

    assert losses[:3] == load_checkpoint(OLD)["losses"]
    assert len(losses) == 6 and losses[3]["cycle"] == pytest.approx(losses[2]["cycle"], rel=0.3)


def test_its_losses_have_their_new_names():
    losses = load_checkpoint(OLD)["losses"]
    names = {"adversarial", "cycle", "identity", "discriminator_mri", "discriminator_ct"}
    assert [set(step) for step in losses] == [names] * 3


def test_it_translates():
    images = torch.zeros(1, 1, 32, 32)
    images[0, 0, 8:20, 8:20] = 0.5
    assert load_translator(OLD).translate(images, "ct").isfinite().all()
