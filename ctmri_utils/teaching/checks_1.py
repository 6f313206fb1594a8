"""Checks of assignment 1: units, windows and splits."""

from __future__ import annotations

import numpy as np

from .checking import check


@check("A1.1", "8-bit numbers do not wrap around", "convert before you multiply, not after")
def stays_in_range(to_physical):
    stored = np.array([0, 200], dtype=np.uint8)
    return to_physical(stored, 4, 0)[1] > 255


@check("A1.1", "the result is an array of floats", "a gain of 1 must give floats, too")
def floats(to_physical):
    return np.issubdtype(to_physical(np.array([1, 2], np.uint16), 1, 0).dtype, np.floating)


@check("A1.1", "the given array stays as it was", "work on a copy: no += on the argument")
def leaves_argument(to_physical):
    stored = np.array([1.0, 2.0])
    to_physical(stored, 3, 5)
    return stored.tolist() == [1.0, 2.0]


@check("A1.2", "the level is the middle of the window", "draw the window on a line of HU first")
def level_is_middle(to_grey, from_grey):
    return abs(int(to_grey(np.array([50.0]), 50, 200)[0]) - 127.5) < 1


@check("A1.2", "greys are rounded, not cut", "what does astype do with 31.9?")
def rounds(to_grey, from_grey):
    steps = to_grey(np.linspace(0, 255, 511), 127.5, 255)
    return np.abs(steps - np.linspace(0, 255, 511)).max() <= 0.5


@check("A1.2", "the way back undoes the way there", "solve the first formula for HU")
def returns(to_grey, from_grey):
    ct_hu = np.linspace(-100, 100, 50)
    return np.abs(from_grey(to_grey(ct_hu, 0, 200), 0, 200) - ct_hu).max() <= 200 / 255


@check("A1.3", "air outside the head does not count", "where does the mean begin?")
def head_only(window_error):
    head = np.array([[True, False]])
    near, far = np.array([[10.0, 0.0]]), np.array([[10.0, -5000.0]])
    return window_error(near, head, 40, 80) == window_error(far, head, 40, 80)


@check("A1.3", "errors do not cancel out", "a mean of what?")
def absolute(window_error):
    both_ends = np.array([[-1000.0, 1080.0]])
    return window_error(both_ends, np.ones((1, 2), bool), 40, 80) > 500


@check("A1.4", "the range is [-1, 1]", "cut off what lies outside")
def in_range(mri_to_network):
    mri = np.arange(2000.0).reshape(2, 20, 50)
    scaled = mri_to_network(mri, np.ones(mri.shape, bool))
    return scaled.min() == -1 and scaled.max() == 1


@check("A1.4", "one tissue has one grey in all slices", "how many scales does a volume have?")
def one_scale(mri_to_network):
    mri = np.stack([np.linspace(0, 100, 100), np.linspace(50, 400, 100)]).reshape(2, 10, 10)
    mri[:, 5, 5] = 60.0
    scaled = mri_to_network(mri, np.ones(mri.shape, bool))
    return abs(scaled[0, 5, 5] - scaled[1, 5, 5]) < 1e-9


@check("A1.4", "what lies outside the head sets no scale", "of which pixels are the percentiles?")
def scale_of_head(mri_to_network):
    head = np.zeros((1, 10, 10), bool)
    head[:, 2:8, 2:8] = True
    mri = np.arange(100.0).reshape(1, 10, 10)
    dirty = np.where(head, mri, 1e5)
    return np.allclose(mri_to_network(mri, head)[head], mri_to_network(dirty, head)[head])


@check("A1.5", "no patient stands on both sides", "draw patients, not slices")
def no_leak(split_by_patient):
    patients = [name for name in "abcdefgh" for _ in range(3)]
    in_test = np.asarray(split_by_patient(patients, 0.4, 0)).reshape(8, 3)
    return bool(np.all(in_test.all(axis=1) == in_test.any(axis=1)))


@check("A1.5", "the share is one of patients", "a patient with many slices is one patient")
def share_of_patients(split_by_patient):
    patients = ["a"] * 30 + ["b", "c", "d"]
    in_test = np.asarray(split_by_patient(patients, 0.5, 0))
    return len(set(np.array(patients)[in_test])) == 2


@check("A1.5", "both sides have a patient", "what if the share is rounded to none, or to all?")
def both_sides(split_by_patient):
    splits = [np.asarray(split_by_patient(["a", "b"], share, 0)) for share in (0.01, 0.99)]
    return all(split.any() and not split.all() for split in splits)


@check("A1.6", "test slices are never marked", "what is marked is left out of the training")
def training_only(too_close):
    marked = np.asarray(too_close(np.arange(4.0), ["a"] * 4, np.array([True, False] * 2), 9.0))
    return not marked[[0, 2]].any()


@check("A1.6", "heights are distances, not places in the list", "slices may come in any order")
def uses_heights(too_close):
    heights = np.array([0.0, 50.0, 1.0])
    marked = np.asarray(too_close(heights, ["a"] * 3, np.array([True, False, False]), 2.0))
    return marked.tolist() == [False, False, True]


@check("A1.6", "another patient's slices stay", "who can leak into whose test?")
def same_patient(too_close):
    marked = np.asarray(too_close(np.zeros(2), ["a", "b"], np.array([True, False]), 5.0))
    return not marked.any()
