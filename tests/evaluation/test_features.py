"""The named extractors: the shipped one is the one its card describes, Inception is Inception or an
error, and KID sees what it should.
"""

import hashlib
import importlib.util
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

from ctmri_utils.cyclegan.networks import count_parameters
from ctmri_utils.evaluation import features as fe
from ctmri_utils.evaluation.distributions import kid
from ctmri_utils.machine import data_folder
from ctmri_utils.scans.datasets import load_scans, phantom_scans
from ctmri_utils.settings import PROFILES

WEIGHTS = data_folder() / "weights"
FILE = WEIGHTS / "ctmri-small-v1.safetensors"
SMALL = "ctmri-small-v1"
# float32 sums of other batches; features are of order 1
ROUNDING = 1e-5


@pytest.fixture(autouse=True)
def nothing_loaded():
    fe.load_extractor.cache_clear()
    yield
    fe.load_extractor.cache_clear()


@pytest.fixture(scope="module")
def phantom():
    """200 patients with both scans, and their images in [-1, 1].

    Half of them are for comparison with the other half.
    """
    return phantom_scans(1, 200, 64, seed=100).test


@pytest.fixture(scope="module")
def real():
    """All embedded slices of each modality."""
    scans = load_scans("scans", PROFILES["laptop"], seed=0)
    return {
        "ct": torch.cat([scans.train.ct, scans.test.ct]),
        "mri": torch.cat([scans.train.mri, scans.test.mri]),
    }


def distance(a, b):
    return fe.kid_of(a, b, SMALL, seed=0)


def noise(n=12, size=64, seed=0):
    return 2 * torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(seed)) - 1


def card():
    with safe_open(FILE, "pt") as file:
        return json.loads(file.metadata()["card"])


def test_the_file_is_the_one_that_the_name_stands_for():
    assert FILE.stat().st_size <= 300_000
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == fe.SMALL_SHA256
    assert card()["name"] == fe.SMALL == SMALL
    assert 50_000 < card()["parameters"] == count_parameters(fe.SmallEncoder()) < 100_000


def test_the_model_card_says_what_the_file_says():
    text = (WEIGHTS / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", text, re.MULTILINE))
    assert rows["SHA-256"] == f"`{fe.SMALL_SHA256}`"
    assert rows["size"] == f"{FILE.stat().st_size:,} bytes"
    for key in ("parameters", "seed", "steps"):
        assert rows[key] == f"{card()[key]:,}"
    for name, value in card()["unseen patients"].items():
        assert rows[name] == f"{value:.3f}"


@pytest.mark.parametrize("damaged", [False, True], ids=["missing", "damaged"])
def test_other_weights_under_the_same_name_are_refused(tmp_path, monkeypatch, damaged):
    (tmp_path / "weights").mkdir()
    if damaged:
        (tmp_path / "weights" / FILE.name).write_bytes(FILE.read_bytes()[:-1] + b"?")
    monkeypatch.setattr(fe, "data_folder", lambda: tmp_path)
    with pytest.raises(ValueError if damaged else FileNotFoundError):
        fe.features(noise(), SMALL)


def builder():
    script = Path(__file__).parents[2] / "data" / "build_extractor.py"
    spec = importlib.util.spec_from_file_location("build_extractor", script)
    module = sys.modules["build_extractor"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_same_seed_trains_the_same_bytes(tmp_path, monkeypatch):
    build, threads = builder(), torch.get_num_threads()
    monkeypatch.setattr(build, "EXAMINED", 1)
    files = [tmp_path / f"{i}.safetensors" for i in range(3)]
    cards = [build.build(file, steps=4, n=4, seed=s) for file, s in zip(files, (3, 3, 4))]
    torch.set_num_threads(threads)
    first, again, other = (file.read_bytes() for file in files)
    assert first == again != other
    assert cards[0].keys() == card().keys()


def test_training_disturbs_image_and_labels_alike_and_says_how():
    """A bright upper half of tissue 2.

    Wherever it moves, its label follows, and it is below exactly where "upside down" says so.
    """
    build, source = builder(), torch.Generator().manual_seed(0)
    labels = torch.zeros(32, 1, 64, 64)
    labels[:, :, :32] = 2
    images, moved, truth = build.disturb(0.8 * (labels - 1), labels, torch.ones(32), source)
    # blur and noise change pixels at the edge
    assert ((images > -0.1) == (moved == 2)).float().mean() > 0.98
    assert not torch.equal(moved, labels)
    above, below = moved[:, 0, :32].sum((1, 2)), moved[:, 0, 32:].sum((1, 2))
    assert torch.equal(below > above, truth[:, 1] == 1) and 0 < truth[:, 1].mean() < 1
    assert (truth[:, 0] == 1).all() and (truth[:, 4].abs() <= 1).all()
    assert ((truth[:, 2:4] >= 0) & (truth[:, 2:4] <= 1)).all()
    shares = build.tissue_shares(moved)
    assert shares.shape == (32, 14, 8, 8) and torch.allclose(shares.sum(1), torch.ones(32, 8, 8))


def test_features_do_not_depend_on_the_batch(phantom, monkeypatch):
    images = torch.cat([phantom.ct[:20], phantom.mri[:20]])
    together = fe.features(images, SMALL)
    assert together.shape == (40, 128) and together.dtype == np.float64
    one_by_one = np.concatenate([fe.features(image[None], SMALL) for image in images])
    np.testing.assert_allclose(one_by_one, together, atol=ROUNDING)
    np.testing.assert_array_equal(fe.features(images.numpy(), SMALL), together)
    monkeypatch.setattr(fe, "BATCH", 7)
    np.testing.assert_allclose(fe.features(images, SMALL), together, atol=ROUNDING)


def test_every_feature_is_centred_alive_and_bounded(phantom):
    """On half CT, half MR. (Centre and spread come from 64, 96 and 128 pixels together, and
    features change a little with size.)
    """
    found = fe.features(torch.cat([phantom.ct, phantom.mri]), SMALL)
    assert np.abs(found.mean(axis=0)).mean() < 0.3
    # a standard normal after z / (1 + |z|): 0.43
    assert found.std(axis=0).min() > 0.05 and np.median(found.std(axis=0)) > 0.2
    assert np.abs(found).max() < 1 and 0.5 < np.abs(fe.features(noise(), SMALL)).max() < 1


def test_any_size_from_32_pixels_will_do():
    for images in (noise(2, 32), noise(2, 62)[..., :-9]):
        assert fe.features(images, SMALL).shape == (2, 128)


def test_the_result_names_its_extractor_and_is_that_of_distances(phantom):
    a, b = phantom.mri[:30], phantom.mri[30:70]
    result = fe.kid_of(a, b, SMALL, seed=5)
    assert result == (SMALL, *kid(fe.features(a, SMALL), fe.features(b, SMALL), seed=5))
    assert str(result).startswith(f"KID {result.value:.4f} [") and SMALL in str(result)


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_two_halves_of_one_distribution_are_at_distance_zero(phantom, modality):
    images = getattr(phantom, modality)
    result = distance(images[:100], images[100:])
    assert result.low < 0 < result.high


def blur(images, sd_px):
    axis = torch.arange(-6, 7)
    kernel = torch.exp(-0.5 * (axis / sd_px) ** 2)
    kernel = (kernel / kernel.sum())[None, None]
    blurred = F.conv2d(F.pad(images, [6] * 4, mode="replicate"), kernel[..., None])
    return F.conv2d(blurred, kernel[..., None, :])


def disturb(images, sd):
    return (images + sd * noise(len(images), seed=1)).clamp(-1, 1)


def brighten(images, up):
    return (images + up).clamp(-1, 1)


HARM = {
    "blur": (blur, (0.5, 0.75, 1.0, 1.5)),
    "noise": (disturb, (0.03, 0.06, 0.12, 0.24)),
    "shift": (brighten, (0.05, 0.1, 0.2, 0.4)),
}


@pytest.mark.parametrize("modality", ["ct", "mri"])
@pytest.mark.parametrize("harm", HARM)
def test_kid_grows_with_the_harm_done(phantom, harm, modality):
    images = getattr(phantom, modality)
    spoil, amounts = HARM[harm]
    results = [distance(images[:100], spoil(images[100:], amount)) for amount in amounts]
    values = [result.value for result in results]
    assert values == sorted(values) and values[0] > 0
    assert results[-1].low > results[0].high


def test_ct_and_mr_are_further_apart_than_mild_harm(phantom):
    ct, mri = phantom.ct, phantom.mri
    apart = distance(ct[:100], mri[100:])
    for spoil, amounts in HARM.values():
        assert distance(ct[:100], spoil(ct[100:], amounts[1])).high < apart.low


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_real_slices_upside_down_are_told_apart(real, modality):
    """Neighbours are 1.5 mm apart, so the two halves of a stack are closer than independent sets.

    Below 0, mirrored or not.
    """
    every_second, others = real[modality][::2], real[modality][1::2]
    upright, upside_down, mirrored = (
        distance(every_second, images) for images in (others, others.flip(2), others.flip(3))
    )
    assert upright.value < 0 and mirrored.value < 0 < upside_down.low
    assert upside_down.value - upright.value > 10 * (mirrored.value - upright.value)


BAD_IMAGES = {
    "no channel": noise()[:, 0],
    "lines": noise()[:, :, 0],
    "two channels": noise().repeat(1, 2, 1, 1),
    "too small": noise(12, 16),
    "none": noise(0),
    "NaN": noise() * torch.nan,
    "other units": 1000 * noise(),
    "background at 0": noise().abs(),
}


@pytest.mark.parametrize("images", BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_bad_images_are_refused(images):
    with pytest.raises(ValueError):
        fe.features(images, SMALL)


@pytest.mark.parametrize("other", [noise(9), noise(12, 32)], ids=["too few", "another size"])
def test_sets_that_cannot_be_compared_are_refused(other):
    with pytest.raises(ValueError):
        fe.kid_of(noise(), other, SMALL, seed=0)


def test_an_unknown_extractor_is_refused():
    with pytest.raises(ValueError):
        fe.kid_of(noise(), noise(), "inception", seed=0)


def test_the_extractor_has_no_default():
    with pytest.raises(TypeError):
        fe.features(noise())


class FakeInception:
    """Stands in for torchmetrics' class.

    Remembers what it was given, returns four numbers per image.
    """

    seen: list = []

    def __init__(self, name, features_list):
        assert (name, features_list) == ("inception-v3-compat", ["2048"])

    def __call__(self, images):
        self.seen.append(images)
        return images.float().mean((2, 3)) @ torch.eye(3, 4)


def install(monkeypatch, network):
    """A torchmetrics whose Inception is `network`."""
    for name in ("torchmetrics", "torchmetrics.image", "torchmetrics.image.fid"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["torchmetrics.image.fid"].NoTrainInceptionV3 = network


def never(*_):
    raise AssertionError("another extractor was used")


def test_inception_gets_8_bit_rgb_and_its_name_is_on_the_result(monkeypatch):
    install(monkeypatch, FakeInception)
    monkeypatch.setattr(fe, "small_encoder", never)
    monkeypatch.setattr(FakeInception, "seen", [])
    levels = torch.tensor([-1.0, 0, 1]).repeat(12)[:, None, None, None].expand(-1, 1, 32, 32)
    found = fe.features(levels, "inception-v3")
    np.testing.assert_allclose(found[:3], [[0, 0, 0, 0], [128, 128, 128, 0], [255, 255, 255, 0]])
    seen = {(part.dtype, part.shape[1:]) for part in FakeInception.seen}
    assert seen == {(torch.uint8, (3, 32, 32))}
    assert fe.kid_of(levels, levels, "inception-v3", seed=0).extractor == "inception-v3"


def missing(**_):
    raise ModuleNotFoundError("requires that `Torch-fidelity` is installed.")


def offline(**_):
    raise OSError("<urlopen error [Errno -2]\nName or service not known>")


@pytest.mark.parametrize(
    ("network", "error"),
    [(None, ImportError), (missing, ImportError), (offline, FileNotFoundError)],
)
def test_without_inception_there_is_a_sentence_and_no_other_number(monkeypatch, network, error):
    if network is None:
        monkeypatch.setitem(sys.modules, "torchmetrics", None)
        monkeypatch.delitem(sys.modules, "torchmetrics.image.fid", raising=False)
    else:
        install(monkeypatch, network)
    monkeypatch.setattr(fe, "small_encoder", never)
    with pytest.raises(error, match=SMALL) as caught:
        fe.kid_of(noise(), noise(seed=1), "inception-v3", seed=0)
    assert "\n" not in str(caught.value)
