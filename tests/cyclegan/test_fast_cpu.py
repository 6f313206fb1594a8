"""The quicker layers against torch's own.

Values, gradients, gradients of gradients, bf16, and the names of their weights.
"""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from ctmri_utils.cyclegan import fast_cpu as layers
from ctmri_utils.cyclegan.fast_cpu import (
    InstanceNorm,
    LastConv,
    ReflectionPad,
    ToOneMap,
    use_fast_layers,
)
from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.cyclegan.networks import ResnetGenerator
from ctmri_utils.settings import Architecture, Objective


def random(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)))


def both(layer, plain_layer, x):
    """Result, gradient of the input and gradients of the weights, of a layer and a plain one."""
    results = []
    for module in (layer, plain_layer):
        leaf = x.clone().requires_grad_()
        result = module(leaf)
        loss = (result * random(*result.shape).to(result)).sum()
        results.append([result, *torch.autograd.grad(loss, [leaf, *module.parameters()])])
    return list(zip(*results, strict=True))


PAIRS = {
    "norm": (InstanceNorm, lambda: nn.InstanceNorm2d(3)),
    "pad 1": (lambda: ReflectionPad(1), lambda: nn.ReflectionPad2d(1)),
    "pad 3": (lambda: ReflectionPad(3), lambda: nn.ReflectionPad2d(3)),
    "one map": (lambda: LastConv(3, 1, 7), lambda: nn.Conv2d(3, 1, 7)),
    "oblong kernel": (lambda: LastConv(3, 1, (3, 5)), lambda: nn.Conv2d(3, 1, (3, 5))),
}


def pair(name):
    layer, plain_layer = (make().double() for make in PAIRS[name])
    plain_layer.load_state_dict(layer.state_dict())  # by the same names
    return layer, plain_layer


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("shape", [(2, 3, 12, 17), (1, 3, 7, 7)])
def test_they_compute_what_torch_computes(name, shape):
    for ours, theirs in both(*pair(name), random(*shape)):
        # float64, sums of some hundred terms in another order
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("width", [1, 3])
def test_the_gradient_of_padding_has_a_gradient(width):
    x = random(2, 3, 8, 9).requires_grad_()
    assert gradcheck(ReflectionPad(width), x)
    assert gradgradcheck(ReflectionPad(width), x)


def test_the_gradients_of_one_map_have_gradients():
    layer = pair("one map")[0]
    given = random(2, 3, 8, 9).requires_grad_(), layer.weight, layer.bias
    assert gradcheck(ToOneMap.apply, given)
    assert gradgradcheck(ToOneMap.apply, given)


@pytest.mark.parametrize("name", ["pad 1", "pad 3", "one map"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_keep_their_input_and_torchs_memory_layout(name, layout):
    layer, plain_layer = pair(name)
    x = random(2, 3, 12, 12).contiguous(memory_format=layout).requires_grad_()
    result = layer(x)
    given = random(*result.shape).contiguous(memory_format=layout)
    before = given.clone()
    gradients, owns = (
        torch.autograd.grad(module(x), [x, *module.parameters()], given)
        for module in (layer, plain_layer)
    )
    assert torch.equal(given, before)
    # else DistributedDataParallel warns
    if layout == torch.contiguous_format:
        assert [part.stride() for part in gradients[1:]] == [part.stride() for part in owns[1:]]
    if name != "one map":  # whose own choice it is
        assert gradients[0].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("width", [1, 3])
def test_padding_keeps_bf16_and_its_gradient_is_rounded_once(width):
    x = random(2, 3, 12, 12).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        padded = ReflectionPad(width)(x)
        assert nn.ReflectionPad2d(width)(x).dtype == torch.float32  # what it spares us
    assert padded.dtype == torch.bfloat16
    given = random(*padded.shape).bfloat16()
    padded.backward(given)
    exact = x.detach().float().requires_grad_()
    nn.ReflectionPad2d(width)(exact).backward(given.float())
    assert torch.equal(x.grad, exact.grad.bfloat16())


def test_one_map_in_bf16_is_as_near_to_the_truth_as_torchs_own():
    x = random(2, 16, 20, 20, dtype=torch.float32)
    layer = LastConv(16, 1, 7)
    plain_layer = nn.Conv2d(16, 1, 7)
    plain_layer.load_state_dict(layer.state_dict())
    truth = [exact for exact, _ in both(layer, plain_layer, x)]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = both(layer, plain_layer, x)
    for exact, (ours, theirs) in zip(truth, rounded, strict=True):
        assert ours.dtype == theirs.dtype
        ours, theirs = ((part - exact).norm() / exact.norm() for part in (ours, theirs))
        # bf16 has 8 bits
        assert ours < 1.5 * theirs + 1e-6
        assert 0 < theirs < 0.02


def test_the_quick_way_is_taken_only_where_it_is_one(monkeypatch):
    calls = []
    monkeypatch.setattr(
        layers.ToOneMap, "apply", lambda *given: calls.append(1) or nn.functional.conv2d(*given)
    )
    x = random(1, 3, 12, 12, dtype=torch.float32)
    LastConv(3, 1, 7)(x)  # nothing to train on
    # as on a GPU
    LastConv(3, 1, 7).to("meta")(torch.empty(1, 3, 12, 12, device="meta", requires_grad=True))
    assert not calls
    generator = ResnetGenerator(ngf=4, n_blocks=1)
    use_fast_layers(generator)
    generator(x[:, :1].requires_grad_())
    assert calls


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(ngf=4, ndf=4, n_blocks=2, n_layers=2),
        Architecture(ngf=4, ndf=4, generator="unet_32", discriminator="pixel"),
        Architecture(ngf=4, ndf=4, n_blocks=1, upsampling="resize", ct_map="two_windows"),
    ],
)
def test_a_model_keeps_its_weights_their_names_and_its_results(architecture):
    torch.manual_seed(0)
    plain = CycleGAN(architecture, Objective(identity=0, pool_size=0)).double()
    fast = deepcopy(plain)
    parameters = list(fast.parameters())
    use_fast_layers(fast)
    assert all(new is old for new, old in zip(fast.parameters(), parameters, strict=True))
    assert list(fast.state_dict()) == list(plain.state_dict())
    assert any(isinstance(layer, InstanceNorm) for layer in fast.modules())
    assert not any(type(layer) is nn.InstanceNorm2d for layer in fast.modules())

    ct, mri = random(2, 1, 48, 48).tanh(), random(2, 1, 48, 48).tanh().flip(0)
    for plain_loss, fast_loss in zip(
        plain.training_step(ct, mri)[:2], fast.training_step(ct, mri)[:2]
    ):
        # float64, the same sums in another order
        torch.testing.assert_close(plain_loss, fast_loss, rtol=1e-11, atol=1e-11)


def test_a_second_call_changes_nothing():
    generator = ResnetGenerator(ngf=4, n_blocks=1)
    use_fast_layers(generator)
    before = list(generator.modules())
    use_fast_layers(generator)
    assert list(generator.modules()) == before


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 1, 7, stride=2),
        nn.Conv2d(3, 1, 7, dilation=2),
        nn.Conv2d(3, 1, 7, padding=3),
        nn.Conv2d(3, 1, 7, bias=False),
        nn.InstanceNorm2d(3, eps=1e-2),
        nn.InstanceNorm2d(3, affine=True),
        nn.ReflectionPad2d((1, 2, 3, 4)),
        nn.ReflectionPad2d(0),
    ],
)
def test_layers_that_only_look_alike_are_left_alone(layer):
    network = nn.Sequential(layer)
    use_fast_layers(network)
    assert network[0] is layer


def test_one_image_without_a_batch_is_normalised_alike():
    x = random(3, 8, 9)
    torch.testing.assert_close(InstanceNorm()(x), nn.InstanceNorm2d(3)(x), atol=1e-12, rtol=0)
