"""What a lesson writes in the open is what the package holds: same names, same bits."""
import ast

import pytest
import rules
import torch

from ctmri_utils import networks


def definitions(name: str) -> dict:
    """The functions and classes of notebooks/`name`.ipynb, in a namespace of their own; of the rest only the imports have run."""
    lesson = rules.load(rules.ROOT / "notebooks" / f"{name}.ipynb")
    wanted = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef
    kept = [node for tree in lesson.trees for node in tree.body if isinstance(node, wanted)]
    namespace = {"__name__": name}
    exec(compile(ast.Module(kept, []), f"{name}.ipynb", "exec"), namespace)
    return namespace


# Lesson 02: the networks.

@pytest.fixture(scope="module")
def lesson_02():
    return definitions("02_build_the_networks")


NETWORKS = [
    ("ResnetGenerator", {}),                                               # the defaults are the published sizes
    ("ResnetGenerator", {"in_channels": 2, "out_channels": 3, "ngf": 4, "n_blocks": 3}),
    ("ResnetGenerator", {"ngf": 4, "n_blocks": 1, "norm": "batch"}),
    ("ResnetGenerator", {"ngf": 4, "n_blocks": 0, "norm": "none"}),
    ("PatchDiscriminator", {}),
    ("PatchDiscriminator", {"in_channels": 2, "ndf": 4, "n_layers": 4}),   # 4: the width stops growing at 8 ndf
    ("PatchDiscriminator", {"ndf": 4, "n_layers": 1, "norm": "batch"}),
    ("PatchDiscriminator", {"ndf": 4, "n_layers": 2, "norm": "none"}),
]


@pytest.mark.parametrize(("network", "options"), NETWORKS)
def test_the_networks_of_lesson_02_are_the_packages(lesson_02, network, options):
    ours, packaged = build(lesson_02[network], options), build(getattr(networks, network), options)
    assert type(ours) is not type(packaged)                                # the lesson's own class, not an import of the package's
    assert_same_bits(ours.state_dict(), packaged.state_dict())
    torch.manual_seed(1)
    images = torch.rand(2, options.get("in_channels", 1), 48, 48) * 2 - 1
    with torch.no_grad():
        for mode in (True, False):                                         # batch norm is another function in eval mode
            assert torch.equal(ours.train(mode)(images), packaged.train(mode)(images))


def build(network, options: dict) -> torch.nn.Module:
    torch.manual_seed(0)
    return network(**options)


def assert_same_bits(one: dict, other: dict):
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_the_block_of_lesson_02_is_the_packages(lesson_02, norm):
    ours = build(lesson_02["ResnetBlock"], {"channels": 8, "norm": norm})
    packaged = build(networks.ResnetBlock, {"channels": 8, "norm": norm, "dropout": False})
    assert_same_bits(ours.state_dict(), packaged.state_dict())
    features = torch.rand(2, 8, 16, 16)
    assert torch.equal(ours(features), packaged(features))
