"""Networks against the published module order, parameter counts and a literal second implementation."""
import pytest
import torch
import torch.nn.functional as F

from ctmri_utils.networks import PatchDiscriminator, PixelDiscriminator, ResnetGenerator, UnetGenerator, count_parameters, init_weights

# Tensors and parameters of the reference implementation's networks with 3 channels, counted from its own checkpoints.
REFERENCE = [
    (lambda: ResnetGenerator(3, 3), 48, 11_378_179),
    (lambda: ResnetGenerator(3, 3, dropout=True), 48, 11_378_179),
    (lambda: ResnetGenerator(3, 3, n_blocks=6), 36, 7_837_699),
    (lambda: ResnetGenerator(3, 3, norm="batch"), 140, 11_383_427),
    (lambda: ResnetGenerator(3, 3, norm="none"), 25, 11_372_931),
    (lambda: UnetGenerator(3, 3), 32, 54_409_603),
    (lambda: UnetGenerator(3, 3, n_downs=7), 28, 41_825_667),
    (lambda: UnetGenerator(3, 3, norm="batch"), 82, 54_413_955),
    (lambda: PatchDiscriminator(3), 10, 2_764_737),
    (lambda: PatchDiscriminator(3, norm="batch"), 22, 2_765_633),
    (lambda: PatchDiscriminator(3, n_layers=5), 14, 11_154_369),
]


@pytest.mark.parametrize(("build", "tensors", "parameters"), REFERENCE)
def test_tensors_and_parameters_are_the_references(build, tensors, parameters):
    with torch.device("meta"):
        network = build()
    assert (len(network.state_dict()), count_parameters(network)) == (tensors, parameters)


def shapes(network):
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def test_resnet_keys_are_the_references():
    with torch.device("meta"):
        keys = shapes(ResnetGenerator(3, 3))
    assert [keys[f"model.{i}.weight"] for i in (1, 4, 7)] == [(64, 3, 7, 7), (128, 64, 3, 3), (256, 128, 3, 3)]
    assert all(keys[f"model.{block}.conv_block.{conv}.weight"] == (256, 256, 3, 3) for block in range(10, 19) for conv in (1, 5))
    assert [keys[f"model.{i}.weight"] for i in (19, 22, 26)] == [(256, 128, 3, 3), (128, 64, 3, 3), (3, 64, 7, 7)]
    with torch.device("meta"):
        assert "model.10.conv_block.6.weight" in shapes(ResnetGenerator(dropout=True))
        batch = shapes(ResnetGenerator(norm="batch"))
    assert {"model.2.running_mean", "model.10.conv_block.2.weight", "model.10.conv_block.6.weight", "model.26.bias"} <= batch.keys()
    assert "model.1.bias" not in batch


def test_unet_and_discriminator_keys_are_the_references():
    with torch.device("meta"):
        unet, patch, pixel = shapes(UnetGenerator(3, 3)), shapes(PatchDiscriminator(3)), shapes(PixelDiscriminator(1))
    inner = {"model.model.1.model.1.weight", "model.model.1.model.3.model.1.weight", "model.model.1.model.5.weight"}
    assert {"model.model.0.weight", "model.model.3.weight"} | inner <= unet.keys()
    assert [patch[f"model.{i}.weight"][:2] for i in (0, 2, 5, 8, 11)] == [(64, 3), (128, 64), (256, 128), (512, 256), (1, 512)]
    assert [pixel[f"net.{i}.weight"][2:] for i in (0, 2, 5)] == [(1, 1)] * 3


def test_unet_with_dropout_has_the_very_same_keys():
    with torch.device("meta"):
        assert shapes(UnetGenerator()) == shapes(UnetGenerator(dropout=True))


def literal_resnet(weights, x, n_blocks):
    """The generator once more, written out with functional calls from the paper's appendix."""
    def conv(x, key, **options):
        return F.conv2d(x, weights[key + ".weight"], weights[key + ".bias"], **options)

    def norm(x):
        mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, unbiased=False)
        return (x - mean) / (variance + 1e-5).sqrt()

    x = norm(conv(F.pad(x, (3,) * 4, mode="reflect"), "model.1")).relu()
    for key in ("model.4", "model.7"):
        x = norm(conv(x, key, stride=2, padding=1)).relu()
    for block in range(10, 10 + n_blocks):
        inner = norm(conv(F.pad(x, (1,) * 4, mode="reflect"), f"model.{block}.conv_block.1")).relu()
        x = x + norm(conv(F.pad(inner, (1,) * 4, mode="reflect"), f"model.{block}.conv_block.5"))
    for key in (f"model.{10 + n_blocks}", f"model.{13 + n_blocks}"):
        x = norm(F.conv_transpose2d(x, weights[key + ".weight"], weights[key + ".bias"], stride=2, padding=1, output_padding=1)).relu()
    return conv(F.pad(x, (3,) * 4, mode="reflect"), f"model.{17 + n_blocks}").tanh()


def test_resnet_computes_what_the_paper_writes():
    torch.manual_seed(0)
    network = init_weights(ResnetGenerator(1, 1, ngf=8, n_blocks=3), gain=0.2).double()
    x = torch.rand(2, 1, 32, 40, dtype=torch.float64) * 2 - 1
    # Same arithmetic in another order, float64: 1e-10 leaves room for thousands of roundings.
    torch.testing.assert_close(network(x), literal_resnet(network.state_dict(), x, 3), atol=1e-10, rtol=0)


def test_unet_skips_carry_the_activated_input():
    """The reference's LeakyReLU works in place, so the skip beside the innermost level is activated too."""
    torch.manual_seed(0)
    network = UnetGenerator(ngf=2, n_downs=5).eval()
    innermost = network.model.model[1].model[3].model[3].model[3]
    seen = {}
    innermost.register_forward_hook(lambda module, inputs, output: seen.update(skip=output[:, :16].clone()))
    innermost.register_forward_pre_hook(lambda module, inputs: seen.update(input=inputs[0].clone()))
    network(torch.rand(1, 1, 64, 64))
    torch.testing.assert_close(seen["skip"], F.leaky_relu(seen["input"], 0.2), atol=0, rtol=0)


@pytest.mark.parametrize(("n_layers", "side"), [(1, 62), (2, 30), (3, 14), (4, 6)])
def test_patch_discriminator_grid(n_layers, side):
    assert PatchDiscriminator(ndf=4, n_layers=n_layers)(torch.rand(2, 1, 128, 128)).shape == (2, 1, side, side)


def test_patch_discriminator_sees_70_pixels():
    """Without normalisation, which mixes all pixels, the gradient of one verdict reaches exactly 70x70 pixels."""
    torch.manual_seed(0)
    image = torch.rand(1, 1, 128, 128, requires_grad=True)
    PatchDiscriminator(ndf=4, norm="none")(image)[0, 0, 7, 7].backward()
    rows, columns = image.grad[0, 0].nonzero().unbind(1)
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (70, 70)


def test_pixel_discriminator_sees_one_pixel():
    image = torch.rand(1, 1, 16, 16, requires_grad=True)
    PixelDiscriminator(ndf=4, norm="none")(image)[0, 0, 5, 6].backward()
    assert image.grad[0, 0].nonzero().tolist() == [[5, 6]]


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_patch_discriminator_works_at_its_smallest_size(n_layers):
    side = 3 * 2**n_layers
    assert PatchDiscriminator(ndf=4, n_layers=n_layers)(torch.rand(1, 1, side, side)).shape == (1, 1, 1, 1)


@pytest.mark.parametrize("generator", [ResnetGenerator(2, 3, ngf=4, n_blocks=1), UnetGenerator(2, 3, ngf=4, n_downs=5)])
def test_generators_keep_the_size_and_stay_inside_tanh(generator):
    output = generator(torch.rand(1, 2, 64, 96))
    assert output.shape == (1, 3, 64, 96) and output.abs().max() < 1


@pytest.mark.parametrize(("init", "spread"), [
    ("normal", 0.02), ("xavier", 0.02 * (2 / (2 * 64 * 9)) ** 0.5), ("kaiming", (2 / (64 * 9)) ** 0.5),
])
def test_init_draws_the_stated_spread(init, spread):
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(64, 64, 3)
    init_weights(layer, init)
    # 36,864 draws: the sample deviation is within 0.4 % (one sigma), so 2 % cannot fail by chance.
    assert layer.weight.std().item() == pytest.approx(spread, rel=0.02) and not layer.bias.any()


def test_orthogonal_init_is_orthogonal():
    layer = init_weights(torch.nn.Conv2d(64, 32, 1), "orthogonal", gain=1.0)
    rows = layer.weight.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(32), atol=1e-5, rtol=0)      # float32 QR


@pytest.mark.parametrize(("call", "sentence"), [
    (lambda: ResnetGenerator(norm="layer"), "norm='layer' is not known"),
    (lambda: init_weights(ResnetGenerator(ngf=4, n_blocks=1), "zero"), "init='zero' is not known"),
    (lambda: UnetGenerator(n_downs=3), "n_downs=3 is too few"),
    (lambda: ResnetGenerator(ngf=4, n_blocks=1)(torch.zeros(1, 1, 30, 32)), "30x32 pixels.*divisible by 4"),
    (lambda: UnetGenerator(ngf=4, n_downs=5)(torch.zeros(1, 1, 48, 64)), "48x64 pixels.*divisible by 32"),
    (lambda: PatchDiscriminator(ndf=4)(torch.zeros(1, 1, 64, 20)), "64x20 pixels: it needs 24 per side"),
])
def test_bad_input_gets_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
