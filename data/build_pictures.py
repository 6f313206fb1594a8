"""Make the pictures of README and data card: translations by the shipped weights for heads.

    python data/build_pictures.py          # data/pictures/heads.png and atlas.png, half a minute

`heads.png` shows real people, without a truth; `atlas.png` synthetic patients that were not trained
on, with the true CT and the error.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from ctmri_utils.cyclegan.model import Translator
from ctmri_utils.machine import data_folder
from ctmri_utils.runs.locations import weights_file
from ctmri_utils.runs.weights import load_translator
from ctmri_utils.scans.datasets import PHANTOM_OPTIONS, phantom_scans
from ctmri_utils.scans.folders import folder_scans
from ctmri_utils.units import HU

SIZE = 128
# Not the seed of any training.
SEED = 9001
COLUMNS = 5

BONE = (-1000, 1500)
BRAIN = (-10, 90)
ERROR = (-500, 500)
MRI = (-1, 1)

# A row of a picture: its title, its images (N, H, W), its window and its colours.
Row = tuple[str, np.ndarray, tuple[float, float], str]


def evenly(count: int) -> np.ndarray:
    """Indices of `COLUMNS` slices, from the lowest to the highest third, evenly."""
    return np.linspace(0.05 * count, 0.85 * count, COLUMNS).astype(int)


def draw(rows: list[Row], path: Path) -> None:
    """Write rows of images, labelled on the left."""
    figure, axes = plt.subplots(len(rows), COLUMNS, figsize=(1.7 * COLUMNS, 1.7 * len(rows)))
    for line, (title, images, (low, high), colours) in zip(axes, rows, strict=True):
        line[0].set_ylabel(title, fontsize=9)
        for ax, image in zip(line, images, strict=True):
            # The head fills the middle of the slice.
            middle = image[4:-4, 8:-8]
            ax.imshow(middle, colours, vmin=low, vmax=high, interpolation="bicubic")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)

    figure.subplots_adjust(left=0.04, right=1, bottom=0, top=1, wspace=0.02, hspace=0.02)
    figure.savefig(path, dpi=100, pil_kwargs={"optimize": True})
    plt.close(figure)


def real_rows(model: Translator) -> list[Row]:
    """A real MR and a real CT, with their translations."""
    test = folder_scans(data_folder() / "scans", SIZE).test
    mri = test.mri[evenly(len(test.mri))]
    ct = test.ct[evenly(len(test.ct))]
    fake_hu = HU.from_network(model.translate(mri, "ct"))[:, 0].numpy()
    true_hu = HU.from_network(ct)[:, 0].numpy()
    return [
        ("MR", mri[:, 0].numpy(), MRI, "gray"),
        ("CT from it, bone", fake_hu, BONE, "gray"),
        ("the same, brain", fake_hu, BRAIN, "gray"),
        ("CT", true_hu, BONE, "gray"),
        ("the same, brain", true_hu, BRAIN, "gray"),
        ("MR from it", model.translate(ct, "mri")[:, 0].numpy(), MRI, "gray"),
    ]


def atlas_rows(model: Translator) -> list[Row]:
    """Synthetic patients: MR, translation, truth and error."""
    scans = phantom_scans(4, COLUMNS, SIZE, SEED, **PHANTOM_OPTIONS["atlas"])
    mri = scans.test.mri
    fake_hu = HU.from_network(model.translate(mri, "ct"))[:, 0].numpy()
    true_hu = scans.test.truth.ct_hu
    return [
        ("MR", mri[:, 0].numpy(), MRI, "gray"),
        ("CT from it, bone", fake_hu, BONE, "gray"),
        ("true CT", true_hu, BONE, "gray"),
        ("CT from it, brain", fake_hu, BRAIN, "gray"),
        ("true CT", true_hu, BRAIN, "gray"),
        ("error, +-500 HU", fake_hu - true_hu, ERROR, "RdBu_r"),
    ]


if __name__ == "__main__":
    plt.switch_backend("Agg")
    translator = load_translator(weights_file("heads"))
    folder = data_folder() / "pictures"
    draw(real_rows(translator), folder / "heads.png")
    draw(atlas_rows(translator), folder / "atlas.png")
