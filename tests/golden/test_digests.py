"""What the code computes is what it computed before the rooms were built: see digests.py."""

import json

import digests
import numpy as np
import pytest
import torch

KEPT = json.loads(digests.FILE.read_text(encoding="utf-8"))

# Relative. In float64 another order of additions stays below 1e-9 over 30 steps (measured against
# the published algorithm).
DOUBLE = 1e-7
# Files and metrics hold rounded pixels and float32 results of a network.
SINGLE = 1e-3


def compare(made: dict, kept: dict, rtol: float, path: str = "") -> None:
    assert made.keys() == kept.keys(), path
    if "sha256" in kept:
        np.testing.assert_allclose(made["numbers"], kept["numbers"], rtol=rtol, err_msg=path)
        return
    for name in kept:
        compare(made[name], kept[name], rtol, f"{path}/{name}")


@pytest.mark.parametrize("name", digests.TRAININGS)
def test_thirty_steps_of_each_objective(name):
    compare(digests.train(name), KEPT[f"training: {name}"], DOUBLE)


def test_thirty_steps_in_float32():
    compare(digests.train("lsgan", torch.float32), KEPT["training: lsgan in float32"], SINGLE)


def test_every_metric():
    compare(digests.metrics(), KEPT["metrics"], DOUBLE)


def test_slices_volumes_weights_and_onnx():
    compare(digests.files(), KEPT["files"], SINGLE)
