"""The live progress of a training run: what is shown, and what is kept for the slider."""

import io

import numpy as np
import pytest
import torch
from helpers.fit_tensors import fit_tensors
from PIL import Image

from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.settings import Architecture
from ctmri_utils.viewers.figures import translation_rows
from ctmri_utils.viewers.progress import LiveProgress, Progress
from ctmri_utils.viewers.symptoms import diverges, symptoms


@pytest.fixture
def updates(monkeypatch):
    """The pictures that a notebook is given, one after the other."""
    shown = []

    class Handle:
        def update(self, image):
            shown.append(image)

    monkeypatch.setattr("IPython.display.display", lambda *_, **__: Handle())
    return shown


def noise(slices=3, side=32):
    torch.manual_seed(0)
    return torch.rand(slices, 1, side, side) * 2 - 1


def small_model():
    torch.manual_seed(0)
    return CycleGAN(Architecture(4, 4, 1, 1))


ALT = "noise and its translations"


def test_live_progress_follows_the_training_and_keeps_its_strips(updates, tmp_path):
    (tmp_path / "step-000099.png").write_bytes(b"of an earlier run")
    model, images = small_model(), noise()
    watched = images[:2], images[1:]
    progress = LiveProgress(model, *watched, steps=5, every=2, alt=ALT, folder=tmp_path)
    fit_tensors(model, images, images, steps=5, batch_size=1, seed=0, on_step=progress)
    assert progress.bar.n == 5 and len(progress.history) == 5
    assert len(updates) == 6 and updates[0].alt == ALT and "up to step 5" in updates[-1].alt
    strips = [f"step-00000{step}.png" for step in (2, 4, 5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == strips
    kept = np.asarray(Image.open(tmp_path / strips[-1]))
    assert np.array_equal(kept, np.asarray(Image.open(io.BytesIO(updates[-2].data))))


def test_finish_shows_a_run_that_was_already_done(updates):
    progress = LiveProgress(small_model(), noise(), noise(), steps=5, every=2, alt=ALT)
    progress.finish([{"adversarial": 0.5, "cycle": 0.1}] * 5)
    assert progress.bar.n == 5 and len(updates) == 2 and "up to step 5" in updates[1].alt


class Fake:
    """A translator that does what it is told, to either modality; otherwise an honest one."""

    def __init__(self, mri=lambda images: images + 1, ct=lambda images: images - 1):
        self.to = {"mri": mri, "ct": ct}

    def translate(self, images, to, averaged=True):
        assert not averaged, "a mean over many steps hides what happens now"
        return self.to[to](images)


def test_symptoms_name_collapse_and_identity_mapping_and_nothing_else():
    torch.manual_seed(0)
    ct, mri = torch.rand(4, 1, 16, 16) - 1, torch.rand(4, 1, 16, 16)
    assert symptoms(Fake(), ct, mri) == ""
    alike = "every fake_mri looks alike (mode collapse)"
    assert symptoms(Fake(mri=lambda images: mri[:1].expand_as(images)), ct, mri) == alike
    identity = "fake_ct is its input (identity mapping)"
    assert symptoms(Fake(ct=lambda images: images + 1e-3), ct, mri) == identity
    both = Fake(lambda images: 0 * images, lambda images: images)
    assert symptoms(both, ct, mri) == f"{alike}, {identity}"


@pytest.mark.parametrize(("ct_size", "mri_size"), [((16, 16), (24, 20)), ((24, 20), (16, 16))])
def test_symptoms_are_seen_also_where_ct_and_mr_differ_in_size(ct_size, mri_size):
    torch.manual_seed(0)
    ct, mri = torch.rand(4, 1, *ct_size) - 1, torch.rand(4, 1, *mri_size)
    assert symptoms(Fake(), ct, mri) == ""
    identity = "fake_mri is its input (identity mapping)"
    assert symptoms(Fake(mri=lambda images: images + 0.05), ct, mri) == identity
    # A change of a quarter of the distance to the mean slice, which is 1: small, but no identity.
    assert symptoms(Fake(mri=lambda images: images + 0.25), ct, mri) == ""


def test_symptoms_of_images_with_other_channels_are_no_identity():
    ct, mri = torch.rand(4, 2, 16, 16) - 1, torch.rand(4, 3, 16, 16)
    honest = Fake(lambda images: images[:, [0, 1, 1]] + 1, lambda images: images[:, :2] - 1)
    assert symptoms(honest, ct, mri) == ""


def test_the_bar_appears_with_the_first_step_and_ends_its_line(capsys):
    images = torch.rand(2, 1, 8, 8) * 2 - 1
    one, other, done = (
        Progress(CycleGAN(Architecture(1, 1, 0, 1)), images, images, steps=2, every=1)
        for _ in range(3)
    )
    one.bar.close()  # a run that `fit` refuses
    assert capsys.readouterr().err == ""
    other(1, {"cycle": 1.0})
    assert "1/2" in capsys.readouterr().err
    other.finish([{"cycle": 1.0}] * 2)
    said = capsys.readouterr().err
    assert "2/2" in said and said.endswith("\n")
    done.finish([{"cycle": 1.0}] * 2)  # a run that had nothing left to do
    assert "2/2" in capsys.readouterr().err


def test_the_strip_shows_slices_of_different_sizes_each_in_its_own(tmp_path):
    torch.manual_seed(0)
    ct, mri = torch.rand(3, 1, 64, 64) * 2 - 1, torch.rand(2, 1, 96, 80) * 2 - 1
    model = small_model()
    progress = Progress(model, ct, mri, steps=2, every=1, folder=tmp_path)
    fit_tensors(model, ct, mri, steps=2, seed=0, on_step=progress)
    assert len(list(tmp_path.glob("step-*.png"))) == 2
    axes = [axis for axis in translation_rows(model, ct, mri).axes if axis.images]
    drawn = [axis.images[0].get_array().shape for axis in axes]
    assert drawn == [(64, 64)] * 9 + [(96, 80)] * 6


def test_one_slice_is_no_collapse(recwarn):
    image = torch.rand(1, 1, 16, 16)
    assert symptoms(Fake(), image - 1, image) == ""
    assert not recwarn


def test_the_bar_warns_but_not_in_the_first_steps(monkeypatch):
    warning = "every fake_mri looks alike"
    monkeypatch.setattr("ctmri_utils.viewers.progress.symptoms", lambda *_: warning)
    images = noise(2, 8)
    progress = Progress(CycleGAN(Architecture(1, 1, 0, 1)), images, images, steps=200, every=50)
    shown = {}
    for step in range(1, 151):
        progress(step, {"cycle": 1.0, "discriminator_ct": 0.5})
        shown[step] = str(progress.bar.postfix)
    assert "cycle=1.00, D_ct=0.50" in shown[50] and "WARNING" not in shown[50]
    assert f"WARNING: {warning}" in shown[100]


def test_strips_of_later_steps_go_when_a_run_goes_back(tmp_path):
    for step in (2, 4, 6):
        (tmp_path / f"step-{step:06d}.png").write_bytes(b"earlier")
    progress = Progress(small_model(), noise(), noise(), steps=6, every=3, folder=tmp_path)
    progress(4, {"cycle": 1.0})  # resumed after step 3
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-000002.png"]
    # one step was made, from which the time left is reckoned
    assert (progress.bar.n, progress.bar.initial) == (4, 3)


def test_a_diverging_training_speaks_up_by_step_20(capsys):
    torch.manual_seed(0)
    images = torch.rand(6, 1, 32, 32) * 2 - 1
    for rate, warned in ((2e-4, False), (100.0, True)):
        model = CycleGAN(Architecture(ngf=4, ndf=4, n_blocks=1, n_layers=1))
        progress = Progress(model, images[:2], images[:2], steps=20, every=50)
        try:
            fit_tensors(
                model, images, -images, steps=20, seed=0, learning_rate=rate, on_step=progress
            )
        except FloatingPointError:
            pass
        said = "".join(capsys.readouterr())
        assert ("training is diverging" in said) == warned
        assert said.count("training is diverging") == warned


def test_one_burst_is_no_divergence():
    usual = {"adversarial": 2.0, "cycle": 1.0, "discriminator_ct": 0.5}
    assert not diverges([usual] * 30 + [usual | {"discriminator_ct": 100.0}] + [usual] * 7)
    assert diverges([usual] * 2 + [usual | {"discriminator_ct": 100.0}] * 8)
    assert not diverges([usual])
