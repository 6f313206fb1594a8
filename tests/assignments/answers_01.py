"""Assignment 1: what a student would really write, wrong and right."""

NAME = "01_units_windows_splits"

WRONG = {
    "to_physical": {
        "the offset is scaled too": "def to_physical(stored, gain, offset):\n    return "
        "(stored.astype(float) + offset) * gain",
        "the offset is subtracted": "def to_physical(stored, gain, offset):\n    return "
        "stored.astype(float) * gain - offset",
        "whole numbers wrap around": "def to_physical(stored, gain, offset):\n    return stored * "
        "gain + float(offset)",
        "rounded to whole HU": "def to_physical(stored, gain, offset):\n    return "
        "(stored.astype(float) * gain + offset).astype(np.int32)",
        "changes what it was given": """
def to_physical(stored, gain, offset):
    values = stored.astype(float) * gain + offset
    stored[:] = 0
    return values""",
    },
    "grey": {
        "the level is taken for the lower edge": """
def to_grey(ct_hu, level, width):
    return np.rint(255 * np.clip((ct_hu - level) / width, 0, 1)).astype(np.uint8)

def from_grey(grey, level, width):
    return level + grey / 255 * width""",
        "cut down, not rounded": """
def to_grey(ct_hu, level, width):
    return (255 * np.clip((ct_hu - level + width / 2) / width, 0, 1)).astype(np.uint8)

def from_grey(grey, level, width):
    return level - width / 2 + grey / 255 * width""",
        "not clipped, so white turns black": """
def to_grey(ct_hu, level, width):
    return np.rint(255 * (ct_hu - level + width / 2) / width).astype(int).astype(np.uint8)

def from_grey(grey, level, width):
    return level - width / 2 + grey / 255 * width""",
        "256 greys instead of 255 steps": """
def to_grey(ct_hu, level, width):
    return np.clip(np.rint(256 * (ct_hu - level + width / 2) / width), 0, 255).astype(np.uint8)

def from_grey(grey, level, width):
    return level - width / 2 + grey / 256 * width""",
        "the way back wraps around": """
def to_grey(ct_hu, level, width):
    return np.rint(255 * np.clip((ct_hu - level + width / 2) / width, 0, 1)).astype(np.uint8)

def from_grey(grey, level, width):
    return grey * np.uint8(width % 256) / 255 + level - width / 2""",
        "left as floats": """
def to_grey(ct_hu, level, width):
    return np.rint(255 * np.clip((ct_hu - level + width / 2) / width, 0, 1))

def from_grey(grey, level, width):
    return level - width / 2 + grey / 255 * width""",
    },
    "window_error": {
        "the air of the room counts": """
def window_error(ct_hu, head, level, width):
    return np.abs(from_grey(to_grey(ct_hu, level, width), level, width) - ct_hu).mean()""",
        "signs cancel": """
def window_error(ct_hu, head, level, width):
    return (from_grey(to_grey(ct_hu, level, width), level, width) - ct_hu)[head].mean()""",
        "root of the mean square": """
def window_error(ct_hu, head, level, width):
    return np.sqrt(
        np.square(from_grey(to_grey(ct_hu, level, width), level, width) - ct_hu)[head].mean()
    )""",
        "divided by all pixels": """
def window_error(ct_hu, head, level, width):
    error = np.abs(from_grey(to_grey(ct_hu, level, width), level, width) - ct_hu)
    return (error * head).sum() / head.size""",
        "clipped, but never stored": """
def window_error(ct_hu, head, level, width):
    return np.abs(np.clip(ct_hu, level - width / 2, level + width / 2) - ct_hu)[head].mean()""",
    },
    "mri_to_network": {
        "slice by slice": """
def mri_to_network(mri, head):
    out = np.zeros(mri.shape)
    for i in range(len(mri)):
        low, high = np.percentile(mri[i][head[i]], [0.5, 99.5])
        out[i] = np.clip((mri[i] - low) / (high - low) * 2 - 1, -1, 1)
    return out""",
        "percentiles of the whole picture": """
def mri_to_network(mri, head):
    low, high = np.percentile(mri, [0.5, 99.5])
    return np.clip((mri - low) / (high - low) * 2 - 1, -1, 1)""",
        "minimum and maximum": """
def mri_to_network(mri, head):
    low, high = mri[head].min(), mri[head].max()
    return np.clip((mri - low) / (high - low) * 2 - 1, -1, 1)""",
        "from 0 to 1": """
def mri_to_network(mri, head):
    low, high = np.percentile(mri[head], [0.5, 99.5])
    return np.clip((mri - low) / (high - low), 0, 1)""",
        "not cut off": """
def mri_to_network(mri, head):
    low, high = np.percentile(mri[head], [0.5, 99.5])
    return (mri - low) / (high - low) * 2 - 1""",
        "mean and deviation": """
def mri_to_network(mri, head):
    return np.clip((mri - mri[head].mean()) / mri[head].std() / 2, -1, 1)""",
    },
    "split_by_patient": {
        "slices at random": """
def split_by_patient(patients, test_share, seed):
    in_test = np.zeros(len(patients), dtype=bool)
    in_test[
        np.random.default_rng(seed).permutation(len(patients))[
            : round(test_share * len(patients))
        ]
    ] = True
    return in_test""",
        "always the last patients": """
def split_by_patient(patients, test_share, seed):
    names = sorted(set(patients))
    count = min(max(round(test_share * len(names)), 1), len(names) - 1)
    return np.isin(patients, names[-count:])""",
        "no seed": """
def split_by_patient(patients, test_share, seed):
    names = np.unique(patients)
    count = min(max(round(test_share * len(names)), 1), len(names) - 1)
    return np.isin(patients, np.random.permutation(names)[:count])""",
        "a share of the slices": """
def split_by_patient(patients, test_share, seed):
    names, sizes = np.unique(patients, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    enough = np.searchsorted(np.cumsum(sizes[order]), test_share * len(patients)) + 1
    return np.isin(patients, names[order[:min(enough, len(names) - 1)]])""",
        "a coin for each patient": """
def split_by_patient(patients, test_share, seed):
    names = np.unique(patients)
    return np.isin(patients, names[np.random.default_rng(seed).random(len(names)) < test_share])""",
        "another split after a restart": """
def split_by_patient(patients, test_share, seed):
    names = list(set(patients))
    count = min(max(round(test_share * len(names)), 1), len(names) - 1)
    return np.isin(patients, np.random.default_rng(seed).permutation(names)[:count])""",
        "an empty test": """
def split_by_patient(patients, test_share, seed):
    names = np.unique(patients)
    return np.isin(
        patients,
        np.random.default_rng(seed).permutation(names)[: round(test_share * len(names))],
    )""",
    },
    "too_close": {
        "other patients count": """
def too_close(z_mm, patients, in_test, gap_mm):
    distance = np.abs(z_mm[:, None] - z_mm[in_test])
    return (distance < gap_mm).any(1) & ~in_test""",
        "counted in slices": """
def too_close(z_mm, patients, in_test, gap_mm):
    marked = np.zeros(len(z_mm), dtype=bool)
    for i in np.flatnonzero(in_test):
        for j in range(max(0, i - 1), min(len(z_mm), i + 2)):
            marked[j] |= patients[i] == patients[j]
    return marked & ~in_test""",
        "the gap itself is too close": """
def too_close(z_mm, patients, in_test, gap_mm):
    patients = np.asarray(patients)
    near = (np.abs(z_mm[:, None] - z_mm) <= gap_mm) & (patients[:, None] == patients)
    return near[:, in_test].any(1) & ~in_test""",
        "test slices are marked too": """
def too_close(z_mm, patients, in_test, gap_mm):
    patients = np.asarray(patients)
    near = (np.abs(z_mm[:, None] - z_mm) < gap_mm) & (patients[:, None] == patients)
    return near[:, in_test].any(1)""",
        "only above": """
def too_close(z_mm, patients, in_test, gap_mm):
    patients = np.asarray(patients)
    up = z_mm[:, None] - z_mm
    return ((up >= 0) & (up < gap_mm) & (patients[:, None] == patients))[:, in_test].any(
        1
    ) & ~in_test""",
    },
}

RIGHT = {
    "to_physical": [
        "def to_physical(stored, gain, offset):\n    return stored.astype(np.float32) * "
        "np.float32(gain) + np.float32(offset)",
        "def to_physical(stored, gain, offset):\n    return np.polyval([gain, offset], "
        "np.array(stored, float))",
    ],
    "grey": [
        """
def to_grey(ct_hu, level, width):
    return np.floor(
        np.interp(ct_hu, [level - width / 2, level + width / 2], [0, 255]) + 0.5
    ).astype("uint8")


def from_grey(grey, level, width):
    return np.interp(grey, [0, 255], [level - width / 2, level + width / 2])""",
        """
from ctmri_utils.units import Scale
from ctmri_utils.windows import Window


def to_grey(ct_hu, level, width):
    return np.array(np.round(Window(level, width).apply(ct_hu) * 255), dtype=np.uint8)


def from_grey(grey, level, width):
    return Scale(level - width / 2, level + width / 2, "HU").from_network(
        grey.astype(float) / 127.5 - 1
    )""",
    ],
    "window_error": [
        """
def window_error(ct_hu, head, level, width):
    inside = ct_hu[head]
    back = from_grey(to_grey(inside, level, width), level, width)
    return sum(abs(back - inside)) / len(inside)""",
        """
def window_error(ct_hu, head, level, width):
    low, step = level - width / 2, width / 255
    stored = np.round((np.clip(ct_hu, low, low + width) - low) / step)
    return np.average(np.abs(low + stored * step - ct_hu), weights=head)""",
    ],
    "mri_to_network": [
        """
from ctmri_utils.units import mri_scale

def mri_to_network(mri, head):
    return mri_scale(mri, head).to_network(mri)""",
        """
def mri_to_network(mri, head):
    values = np.sort(mri[head])
    low, high = (
        np.interp(q * (len(values) - 1), np.arange(len(values)), values)
        for q in (0.005, 0.995)
    )
    return np.interp(mri, [low, high], [-1, 1])""",
    ],
    "split_by_patient": [
        """
import random

def split_by_patient(patients, test_share, seed):
    names = sorted(set(patients))
    count = max(1, min(len(names) - 1, round(test_share * len(names))))
    test = set(random.Random(seed).sample(names, count))
    return np.array([name in test for name in patients])""",
        """
def split_by_patient(patients, test_share, seed):
    names, index = np.unique(patients, return_inverse=True)
    rank = np.argsort(np.random.RandomState(seed).rand(len(names)))
    return (rank < np.clip(np.rint(test_share * len(names)), 1, len(names) - 1))[index]""",
    ],
    "too_close": [
        """
def too_close(z_mm, patients, in_test, gap_mm):
    marked = []
    for z, name, test in zip(z_mm, patients, in_test):
        others = [
            abs(z - y)
            for y, other, other_test in zip(z_mm, patients, in_test)
            if other_test and other == name
        ]
        marked.append(bool(not test and others and min(others) < gap_mm))
    return np.array(marked)""",
        """
def too_close(z_mm, patients, in_test, gap_mm):
    marked = np.zeros(len(z_mm), bool)
    for name in set(patients):
        mine = np.array(patients) == name
        for z in z_mm[mine & in_test]:
            marked |= mine & ~in_test & (abs(z_mm - z) < gap_mm)
    return marked""",
    ],
}
