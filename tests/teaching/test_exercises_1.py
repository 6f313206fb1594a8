"""The exercises of lesson 1: right answers pass, typical wrong ones get a hint."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ctmri_utils.masks import mri_head_mask
from ctmri_utils.scans import TISSUES, load_scans, synthetic_patients
from ctmri_utils.settings import settings_for
from ctmri_utils.teaching import mira
from ctmri_utils.units import mri_scale
from ctmri_utils.windows import WINDOWS


def test_greys_in_the_brain_window(passes, gets_a_hint):
    apart = TISSUES["grey matter"].hu - TISSUES["white matter"].hu
    passes("1.1", apart / WINDOWS["brain"].width * 255)

    # HU, the level in place of the width, and another window.
    for greys in (apart, apart / WINDOWS["brain"].level * 255, apart / 400 * 255):
        gets_a_hint("1.1", greys)


@pytest.fixture(scope="module")
def people():
    return synthetic_patients(8, 128, 3)


def test_another_scanner(passes, gets_a_hint, people):
    mri = people.mri
    head = mri_head_mask(mri)

    def largest(other, scale):
        first = mri_scale(mri, head).to_network(mri)
        return np.abs(scale.to_network(other) - first).max()

    def own_scale(other):
        return mri_scale(other, head)

    line, curve = 7 * mri + 30, mri**1.5
    right = largest(line, own_scale(line)), largest(curve, own_scale(curve))
    passes("1.2", right, mri)

    # The first scanner's scale for all, and means in place of the largest difference.
    one_scale = mri_scale(mri, head)
    gets_a_hint("1.2", (largest(line, one_scale), right[1]), mri)
    gets_a_hint("1.2", (right[0], largest(curve, one_scale)), mri)
    gets_a_hint("1.2", (right[0], right[1] / 4), mri)
    gets_a_hint("1.2", (0.0, 0.0), mri)


def test_the_bleed_on_two_scans(passes, gets_a_hint):
    truth = mira(64).test.truth
    white = truth.labels == TISSUES["white matter"].label

    def means(images):
        return images[truth.lesion].mean(), images[white].mean()

    (bleed_hu, white_hu), (bleed_mri, white_mri) = map(means, (truth.ct_hu_clean, truth.mri_clean))
    passes("1.3", (bleed_hu - white_hu, bleed_mri / white_mri), truth)

    # The bleed's own HU, white matter over the bleed, and a difference of MR values.
    gets_a_hint("1.3", (bleed_hu, bleed_mri / white_mri), truth)
    gets_a_hint("1.3", (bleed_hu - white_hu, white_mri / bleed_mri), truth)
    gets_a_hint("1.3", (bleed_hu - white_hu, bleed_mri - white_mri), truth)


def write_folder(root, people, shift=1024, offset=-1024, unit="HU"):
    """Like the solution, with a shift of the HU and what the manifest says about it."""
    lines = ["file,patient,unit,gain,offset"]
    for i, side in enumerate(("train", "train", "test", "test")):
        ct_name, mri_name = f"{side}A/ct{i}.png", f"{side}B/mri{i}.png"
        ct, mri = people.ct_hu[i] + shift, 100 * people.mri[i + 4]
        for name, stored in ((ct_name, ct), (mri_name, mri)):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            whole = np.rint(stored).clip(0, 65535).astype(np.uint16)
            Image.fromarray(whole).save(root / name)
        lines.append(f"{ct_name},person{i},{unit},1,{offset}")
        lines.append(f"{mri_name},person{i + 4},MR unit,0.01,0")
    (root / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def test_a_folder_of_ones_own(passes, gets_a_hint, people, tmp_path):
    settings = replace(settings_for("ci"), scans_size=128)
    own = load_scans(write_folder(tmp_path / "right", people), settings, 0)
    passes("1.4", own, people)

    # Negative HU cut off, the offset forgotten, and the profile's own size.
    cut_off = load_scans(write_folder(tmp_path / "cut", people, 0, 0), settings, 0)
    shifted = load_scans(write_folder(tmp_path / "shifted", people, 1024, 0), settings, 0)
    small = load_scans(tmp_path / "right", settings_for("ci"), 0)
    for wrong in (cut_off, shifted, small):
        gets_a_hint("1.4", wrong, people)
