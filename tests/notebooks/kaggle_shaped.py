"""A set shaped as Kaggle's is: 8-bit pictures without HU, people or pairs, in several sizes.

python tests/notebooks/kaggle_shaped.py FOLDER    write it, for `make course DATASET=FOLDER`
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ctmri_utils import WINDOWS, synthetic_patients

# Files in each folder, as unequal as on Kaggle.
COUNTS = {"trainA": 13, "trainB": 14, "testA": 7, "testB": 6}
# (width, height) in pixels, one picture after the other.
SIZES = ((160, 160), (150, 150), (137, 161))


def write(folder: Path) -> Path:
    """Write the set below a folder, as it lies in Kaggle's archive.

    CT went through the window "soft tissue" and is PNG in colour mode, MR is JPEG.

    Returns:
        The folder that names it as DATASET.
    """
    for seed, (name, count) in enumerate(COUNTS.items()):
        images = folder / "Dataset" / "images" / name
        images.mkdir(parents=True)
        patients = synthetic_patients(count, 128, seed, anatomy="atlas")
        for i in range(count):
            size = SIZES[i % len(SIZES)]
            if name.endswith("A"):
                grey = 255 * WINDOWS["soft tissue"].apply(patients.ct_hu[i])
                picture(grey, size).convert("RGB").save(images / f"ct{i + 1}.png")
            else:
                grey = 255 * patients.mri[i] / np.percentile(patients.mri[i], 99.8)
                picture(grey, size).save(images / f"mri{i + 1}.jpg", quality=90)
    return folder


def picture(grey: np.ndarray, size: tuple[int, int]) -> Image.Image:
    whole = np.rint(np.clip(grey, 0, 255)).astype(np.uint8)
    return Image.fromarray(whole).resize(size, Image.Resampling.BILINEAR)


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
