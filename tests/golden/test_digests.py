"""The code computes what it computed before: see digests.py."""

import json

import numpy as np
import pytest
import torch
from golden import digests

KEPT = json.loads(digests.FILE.read_text(encoding="utf-8"))

# Relative. In float64 another order of additions stays below 1e-9 over 30 steps (measured against
# the published algorithm).
DOUBLE = 1e-7
# Files and metrics hold rounded pixels and float32 results of a network.
SINGLE = 1e-3


def compare(new: dict, kept: dict, rtol: float, path: str = "") -> None:
    assert new.keys() == kept.keys(), path
    if "sha256" in kept:
        np.testing.assert_allclose(new["numbers"], kept["numbers"], rtol=rtol, err_msg=path)
        return
    for name in kept:
        compare(new[name], kept[name], rtol, f"{path}/{name}")


@pytest.mark.parametrize("name", digests.TRAININGS)
def test_thirty_steps_of_each_objective(name):
    compare(digests.train(name), KEPT[f"training: {name}"], DOUBLE)


def test_thirty_steps_in_float32():
    compare(digests.train("lsgan", torch.float32), KEPT["training: lsgan in float32"], SINGLE)


def test_every_metric():
    compare(digests.metrics(), KEPT["metrics"], DOUBLE)


def test_slices_volumes_weights_and_onnx():
    compare(digests.files(), KEPT["files"], SINGLE)
