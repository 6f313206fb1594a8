"""What a lesson writes in the open is what the package holds: same names, same numbers."""

import ast

import pytest
import rules
import torch

from ctmri_utils.cyclegan import losses, networks
from ctmri_utils.cyclegan import model as translators
from ctmri_utils.settings import Architecture, Objective


def definitions(name: str) -> dict:
    """The functions and classes of notebooks/`name`.ipynb, in a namespace of their own.

    Of the rest only the imports have run.
    """
    lesson = rules.load(rules.ROOT / "notebooks" / f"{name}.ipynb")
    kinds = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef
    body = [node for tree in lesson.trees for node in tree.body if isinstance(node, kinds)]
    namespace = {"__name__": name}
    exec(compile(ast.Module(body, []), f"{name}.ipynb", "exec"), namespace)
    return namespace


@pytest.fixture(scope="module")
def lesson_02():
    return definitions("02_build_the_networks")


NETWORKS = [
    # The defaults are the published sizes.
    ("ResnetGenerator", {}),
    ("ResnetGenerator", {"in_channels": 2, "out_channels": 3, "ngf": 4, "n_blocks": 3}),
    ("ResnetGenerator", {"ngf": 4, "n_blocks": 1, "norm": "batch"}),
    ("ResnetGenerator", {"ngf": 4, "n_blocks": 0, "norm": "none"}),
    ("PatchDiscriminator", {}),
    # With four layers the width stops growing, at 8 ndf.
    ("PatchDiscriminator", {"in_channels": 2, "ndf": 4, "n_layers": 4}),
    ("PatchDiscriminator", {"ndf": 4, "n_layers": 1, "norm": "batch"}),
    ("PatchDiscriminator", {"ndf": 4, "n_layers": 2, "norm": "none"}),
]


@pytest.mark.parametrize(("network", "options"), NETWORKS)
def test_the_networks_of_lesson_02_are_the_packages(lesson_02, network, options):
    ours, packaged = build(lesson_02[network], options), build(getattr(networks, network), options)
    # The lesson defines the class and does not import the package's.
    assert type(ours) is not type(packaged)
    assert_same_bits(ours.state_dict(), packaged.state_dict())
    torch.manual_seed(1)
    images = torch.rand(2, options.get("in_channels", 1), 48, 48) * 2 - 1
    with torch.no_grad():
        # Batch norm is another function in eval mode.
        for mode in (True, False):
            assert_same_numbers(ours.train(mode), packaged.train(mode), images)


def build(network, options: dict) -> torch.nn.Module:
    torch.manual_seed(0)
    return network(**options)


def assert_same_bits(ours: dict, packaged: dict):
    assert list(ours) == list(packaged)
    assert all(torch.equal(ours[name], packaged[name]) for name in ours)


def assert_same_numbers(ours: torch.nn.Module, packaged: torch.nn.Module, images: torch.Tensor):
    """In float64, because the package's instance norm adds in another, quicker order."""
    images = images.double()
    torch.testing.assert_close(ours.double()(images), packaged.double()(images), atol=1e-9, rtol=0)


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_the_block_of_lesson_02_is_the_packages(lesson_02, norm):
    ours = build(lesson_02["ResnetBlock"], {"channels": 8, "norm": norm})
    packaged = build(networks.ResnetBlock, {"channels": 8, "norm": norm, "dropout": False})
    assert_same_bits(ours.state_dict(), packaged.state_dict())
    assert_same_numbers(ours, packaged, torch.rand(2, 8, 16, 16))


@pytest.fixture(scope="module")
def lesson_03():
    namespace = definitions("03_train_a_cyclegan")
    # The step reads the lesson's weights.
    namespace["objective"] = Objective(cycle_ct=10, cycle_mri=3, identity=1, pool_size=0)
    return namespace


def test_the_training_step_of_lesson_03_is_the_packages(lesson_03):
    torch.manual_seed(0)
    model = translators.CycleGAN(
        Architecture(ngf=4, ndf=4, n_blocks=1, n_layers=1), lesson_03["objective"]
    ).double()
    ct, mri = torch.rand(2, 2, 1, 32, 32, dtype=torch.float64) * 2 - 1
    generator_loss, discriminator_loss = lesson_03["training_step"](model, ct, mri)
    packaged = model.training_step(ct, mri)
    # In float64 only the batching of the calls differs.
    assert generator_loss.item() == pytest.approx(packaged.generator_loss.item(), abs=1e-10)
    assert discriminator_loss.item() == pytest.approx(packaged.discriminator_loss.item(), abs=1e-10)
    for weights, our_loss, packaged_loss in (
        (model.generator_parameters, generator_loss, packaged.generator_loss),
        (model.discriminator_parameters, discriminator_loss, packaged.discriminator_loss),
    ):
        our_gradients = torch.autograd.grad(our_loss, weights)
        gradients = torch.autograd.grad(packaged_loss, weights)
        torch.testing.assert_close(our_gradients, gradients, atol=1e-9, rtol=1e-9)


def test_the_training_step_of_lesson_03_has_at_most_twenty_statements():
    lesson = rules.load(rules.ROOT / "notebooks" / "03_train_a_cyclegan.ipynb")
    parts = ("generator_loss", "discriminator_loss", "training_step")
    functions = [node for tree in lesson.trees for node in tree.body if hasattr(node, "body")]
    step = [node for node in functions if getattr(node, "name", "") in parts]
    assert len(step) == 3 and sum(map(rules.statements, step)) <= 20


def test_the_pool_of_lesson_03_is_the_packages(lesson_03):
    fakes = torch.rand(6, 4, 1, 8, 8)
    shown = []
    for pool in (lesson_03["Pool"](5), translators.ImagePool(5)):
        torch.manual_seed(0)
        shown.append([pool(batch) for batch in fakes])
    assert all(torch.equal(ours, packaged) for ours, packaged in zip(*shown))


def test_the_losses_of_lesson_03_are_the_packages(lesson_03):
    cycled, ct = torch.rand(2, 2, 1, 8, 8)
    assert lesson_03["adversarial"](ct, 1.0) == losses.adversarial_loss(ct, True)
    assert lesson_03["adversarial"](ct, 0.0) == losses.adversarial_loss(ct, False)
    assert lesson_03["mean_absolute"](cycled, ct) == losses.cycle_loss(cycled, ct)
    assert lesson_03["mean_absolute"](cycled, ct) == losses.identity_loss(cycled, ct)
