"""The live progress of a training run: what is shown, and what is kept for the slider."""
import io

import numpy as np
import torch
from PIL import Image

from ctmri_utils.progress import LiveProgress
from ctmri_utils.training import fit
from ctmri_utils.translators import Architecture, CycleGAN


def test_live_progress_follows_the_training_and_keeps_its_strips(monkeypatch, tmp_path):
    updates = []

    class Handle:
        def update(self, image):
            updates.append(image)

    monkeypatch.setattr("IPython.display.display", lambda *_, **__: Handle())
    (tmp_path / "step-000099.png").write_bytes(b"of an earlier run")
    torch.manual_seed(0)
    model, images = CycleGAN(Architecture(4, 4, 1, 1)), torch.rand(3, 1, 32, 32) * 2 - 1
    progress = LiveProgress(model, images[:2], images[1:], steps=5, every=2, alt="noise and its translations", folder=tmp_path)
    fit(model, images, images, steps=5, batch_size=1, seed=0, on_step=progress)
    assert progress.bar.n == 5 and len(progress.history) == 5
    assert len(updates) == 6 and updates[0].alt == "noise and its translations" and "up to step 5" in updates[-1].alt
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002.png", "step-000004.png", "step-000005.png"]
    kept = np.asarray(Image.open(tmp_path / "step-000005.png"))
    assert np.array_equal(kept, np.asarray(Image.open(io.BytesIO(updates[-2].data))))


def test_finish_shows_a_run_that_was_already_done(monkeypatch):
    updates = []

    class Handle:
        def update(self, image):
            updates.append(image)

    monkeypatch.setattr("IPython.display.display", lambda *_, **__: Handle())
    torch.manual_seed(0)
    model, images = CycleGAN(Architecture(4, 4, 1, 1)), torch.rand(3, 1, 32, 32) * 2 - 1
    progress = LiveProgress(model, images[:2], images[1:], steps=5, every=2, alt="noise and its translations")
    progress.finish([{"adversarial": 0.5, "cycle": 0.1}] * 5)
    assert progress.bar.n == 5 and len(updates) == 2 and "up to step 5" in updates[1].alt
