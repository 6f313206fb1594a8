"""Networks against the published module order, parameter counts and a literal second
implementation.
"""

import pytest
import torch
import torch.nn.functional as F
from helpers.reference_cyclegan import resnet_generator

from ctmri_utils.cyclegan.architectures import (
    infer_architecture,
    make_discriminator,
    make_generator,
)
from ctmri_utils.cyclegan.networks import (
    PatchDiscriminator,
    ResnetGenerator,
    count_parameters,
    init_weights,
    upsample,
)
from ctmri_utils.cyclegan.variants import PixelDiscriminator, UnetGenerator
from ctmri_utils.evaluation.faithfulness import checkerboard_db

# Tensors and parameters of the reference implementation's networks with 3 channels, counted from
# its own checkpoints.
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
        dropout = shapes(ResnetGenerator(dropout=True))
        batch = shapes(ResnetGenerator(norm="batch"))
    assert keys["model.1.weight"] == (64, 3, 7, 7)
    assert keys["model.4.weight"] == (128, 64, 3, 3)
    assert keys["model.7.weight"] == (256, 128, 3, 3)
    for block in range(10, 19):
        assert keys[f"model.{block}.conv_block.1.weight"] == (256, 256, 3, 3)
        assert keys[f"model.{block}.conv_block.5.weight"] == (256, 256, 3, 3)
    assert keys["model.19.weight"] == (256, 128, 3, 3)
    assert keys["model.22.weight"] == (128, 64, 3, 3)
    assert keys["model.26.weight"] == (3, 64, 7, 7)

    assert "model.10.conv_block.6.weight" in dropout
    norms = {"model.2.running_mean", "model.10.conv_block.2.weight", "model.10.conv_block.6.weight"}
    assert norms | {"model.26.bias"} <= batch.keys()
    assert "model.1.bias" not in batch


def test_unet_and_discriminator_keys_are_the_references():
    with torch.device("meta"):
        unet = shapes(UnetGenerator(3, 3))
        patch = shapes(PatchDiscriminator(3))
        pixel = shapes(PixelDiscriminator(1))
    assert {
        "model.model.0.weight",
        "model.model.1.model.1.weight",
        "model.model.1.model.3.model.1.weight",
        "model.model.1.model.5.weight",
        "model.model.3.weight",
    } <= unet.keys()
    channels = [patch[f"model.{i}.weight"][:2] for i in (0, 2, 5, 8, 11)]
    assert channels == [(64, 3), (128, 64), (256, 128), (512, 256), (1, 512)]
    assert [pixel[f"net.{i}.weight"][2:] for i in (0, 2, 5)] == [(1, 1)] * 3


def test_unet_with_dropout_has_the_very_same_keys():
    with torch.device("meta"):
        assert shapes(UnetGenerator()) == shapes(UnetGenerator(dropout=True))
        drops = [
            name
            for name, module in UnetGenerator(dropout=True).named_modules()
            if isinstance(module, torch.nn.Dropout)
        ]
    # the three levels between the innermost and the fourth
    assert sorted(name.count("model.3") for name in drops) == [3, 4, 5]


def test_resnet_computes_what_the_paper_writes():
    torch.manual_seed(0)
    network = init_weights(ResnetGenerator(1, 1, ngf=8, n_blocks=3), gain=0.2).double()
    x = torch.rand(2, 1, 32, 40, dtype=torch.float64) * 2 - 1
    # Same arithmetic in another order, float64: 1e-10 leaves room for thousands of roundings.
    torch.testing.assert_close(
        network(x), resnet_generator(network.state_dict(), x), atol=1e-10, rtol=0
    )


def test_unet_skips_carry_the_activated_input():
    """The reference's LeakyReLU works in place, so the skip beside the innermost level is activated
    too.
    """
    torch.manual_seed(0)
    network = UnetGenerator(ngf=2, n_downs=5).eval()
    innermost = network.model.model[1].model[3].model[3].model[3]
    seen = {}
    innermost.register_forward_hook(
        lambda module, inputs, output: seen.update(skip=output[:, :16].clone())
    )
    innermost.register_forward_pre_hook(lambda module, inputs: seen.update(input=inputs[0].clone()))
    network(torch.rand(1, 1, 64, 64))
    torch.testing.assert_close(seen["skip"], F.leaky_relu(seen["input"], 0.2), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("n_layers", "size", "side"),
    [
        *[(1, 128, 62), (2, 128, 30), (3, 128, 14), (4, 128, 6)],
        # The smallest images.
        *[(1, 6, 1), (2, 12, 1), (3, 24, 1)],
    ],
)
def test_patch_discriminator_grid(n_layers, size, side):
    verdict = PatchDiscriminator(ndf=4, n_layers=n_layers)(torch.rand(2, 1, size, size))
    assert verdict.shape == (2, 1, side, side)


def test_patch_discriminator_sees_70_pixels():
    """Without normalisation, which mixes all pixels, the gradient of one verdict reaches exactly
    70x70 pixels.
    """
    torch.manual_seed(0)
    image = torch.rand(1, 1, 128, 128, requires_grad=True)
    PatchDiscriminator(ndf=4, norm="none")(image)[0, 0, 7, 7].backward()
    rows, columns = image.grad[0, 0].nonzero().unbind(1)
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (70, 70)


def test_pixel_discriminator_sees_one_pixel():
    image = torch.rand(1, 1, 16, 16, requires_grad=True)
    PixelDiscriminator(ndf=4, norm="none")(image)[0, 0, 5, 6].backward()
    assert image.grad[0, 0].nonzero().tolist() == [[5, 6]]


@pytest.mark.parametrize(
    "generator", [ResnetGenerator(2, 3, ngf=4, n_blocks=1), UnetGenerator(2, 3, ngf=4, n_downs=5)]
)
def test_generators_keep_the_size_and_stay_inside_tanh(generator):
    output = generator(torch.rand(1, 2, 64, 96))
    assert output.shape == (1, 3, 64, 96)
    assert output.abs().max() < 1


@pytest.mark.parametrize(
    ("init", "spread"),
    [("normal", 0.02), ("xavier", 0.02 * (1 / 576) ** 0.5), ("kaiming", (2 / 576) ** 0.5)],
)
def test_init_draws_the_stated_spread(init, spread):
    """576 weights reach each output, and each input: 64 channels of 3x3."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(64, 64, 3)
    init_weights(layer, init)
    # 36,864 draws: the sample deviation is within 0.4 % (one sigma), so 2 % cannot fail by chance.
    assert layer.weight.std().item() == pytest.approx(spread, rel=0.02)
    assert not layer.bias.any()


def test_orthogonal_init_is_orthogonal():
    layer = init_weights(torch.nn.Conv2d(64, 32, 1), "orthogonal", gain=1.0)
    rows = layer.weight.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(32), atol=1e-5, rtol=0)  # float32 QR


def folded(index, length):
    """The pixel that reflection at both edges, without repeating them, puts at `index`."""
    return length - 1 - abs(length - 1 - abs(index))


@pytest.mark.parametrize("name", ["resnet_1blocks", "unet_16"])
@pytest.mark.parametrize(("height", "width"), [(29, 38), (32, 47), (31, 48)])
def test_indivisible_images_are_reflected_and_cropped_back(name, height, width):
    torch.manual_seed(0)
    network = init_weights(make_generator(name, ngf=4), gain=0.2).double()
    x = torch.rand(2, 1, height, width, dtype=torch.float64)
    down, across = -height % network.multiple, -width % network.multiple
    rows = [folded(i - down // 2, height) for i in range(height + down)]
    columns = [folded(i - across // 2, width) for i in range(width + across)]
    larger = network.model(x[:, :, rows][..., columns])
    expected = larger[..., down // 2 : down // 2 + height, across // 2 : across // 2 + width]
    torch.testing.assert_close(network(x), expected, atol=0, rtol=0)


@pytest.mark.parametrize(("name", "side"), [("resnet_2blocks", 20), ("unet_32", 64)])
def test_nothing_is_padded_at_divisible_sizes(name, side):
    network = make_generator(name, ngf=4)
    x = torch.rand(2, 1, side, 3 * side) * 2 - 1
    assert torch.equal(network(x), network.model(x))


@pytest.mark.parametrize("name", ["resnet_9blocks", "unet_64"])
@pytest.mark.parametrize("upsampling", ["transposed", "resize"])
def test_a_blank_slice_translates_and_has_finite_gradients(name, upsampling):
    """Instance norm divides by the spread of a map.

    Where there is none, rounding errors would grow 316-fold at each layer.
    """
    torch.manual_seed(0)
    network = init_weights(make_generator(name, ngf=8, upsampling=upsampling))
    discriminator = init_weights(make_discriminator(ndf=8))
    blank, real = torch.full((1, 1, 64, 64), -1.0), torch.rand(1, 1, 64, 64) * 2 - 1

    def size_of_gradient(image):
        loss = (discriminator(network(image)) - 1).square().mean() + 10 * (
            network(image) - image
        ).abs().mean()
        grown = torch.autograd.grad(loss, [*network.parameters(), *discriminator.parameters()])
        assert all(gradient.isfinite().all() for gradient in grown)
        return sum(gradient.square().sum() for gradient in grown).sqrt().item()

    assert network(blank).isfinite().all()
    # without care some thousand times as large
    assert size_of_gradient(blank) < 10 * size_of_gradient(real)
    both = network(torch.cat([blank, real]))
    # float32 rounding
    torch.testing.assert_close(both, torch.cat([network(blank), network(real)]), atol=1e-5, rtol=0)


def test_a_blank_slice_becomes_a_blank_one():
    """In exact arithmetic all maps of a blank slice are 0 after each instance norm, so that only
    the last bias is left.
    """
    torch.manual_seed(0)
    network = init_weights(ResnetGenerator(2, 2, ngf=4, n_blocks=2))
    network.model[-2].bias.data = torch.tensor([0.3, -0.7])
    image = torch.rand(3, 2, 16, 16)
    # blank, though its channels differ
    image[1, 0], image[1, 1] = -1, 0.4
    image[2, 0] = -1  # only one channel is
    translated = network(image)
    biases = torch.tensor([0.3, -0.7]).tanh()[:, None, None]
    assert torch.equal(translated[1], biases.expand(2, 16, 16))
    assert torch.equal(translated[[0, 2]], network.model(image)[[0, 2]])


@pytest.mark.parametrize("name", ["resnet_2blocks", "unet_32"])
def test_resize_convolutions_leave_less_checkerboard(name):
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 64)] * 2, indexing="ij")
    blob = 2 * torch.exp(-(x**2 + y**2) / 0.18)[None, None] - 1
    energy = {"transposed": [], "resize": []}
    for upsampling, found in energy.items():
        for seed in range(5):
            torch.manual_seed(seed)
            network = init_weights(make_generator(name, ngf=8, upsampling=upsampling))
            found.append(checkerboard_db(network(blob).detach()))
    # dB: ten times the energy, in the worst case of five
    assert min(energy["transposed"]) > max(energy["resize"]) + 10, energy


def test_resize_repeats_pixels_and_convolves_by_reflection():
    torch.manual_seed(0)
    layer = upsample("resize", 3, 2, 4, bias=True).double()
    x = torch.rand(2, 3, 5, 6, dtype=torch.float64)
    enlarged = F.pad(x.repeat_interleave(2, 2).repeat_interleave(2, 3), (1,) * 4, mode="reflect")
    torch.testing.assert_close(
        layer(x), F.conv2d(enlarged, layer[2].weight, layer[2].bias), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize(("name", "doublings"), [("resnet_3blocks", 2), ("unet_32", 5)])
def test_resize_changes_no_other_key(name, doublings):
    with torch.device("meta"):
        transposed = shapes(make_generator(name))
        resized = shapes(make_generator(name, upsampling="resize"))
    moved = {
        key: key.rsplit(".", 2)[0] + "." + key.rsplit(".", 1)[1]
        for key in resized
        if key not in transposed
    }
    # weight and bias of each
    assert [moved.get(key, key) for key in resized] == list(transposed)
    assert len(moved) == 2 * doublings


@pytest.mark.parametrize("name", ["basic", "pixel"])
def test_spectral_norm_bounds_every_convolution_by_one(name):
    torch.manual_seed(0)
    discriminator = init_weights(make_discriminator(name, ndf=8, spectral=True), gain=0.5)
    # each pass in training mode is a step of its power iteration
    for _ in range(20):
        discriminator(torch.rand(1, 1, 32, 32))
    layers = [module for module in discriminator.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(layers) >= 3
    for layer in layers:
        largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2).item()
        # power iteration comes near from above
        assert largest == pytest.approx(1, abs=0.02)
        # what the initialisation drew is kept beneath
        assert layer.parametrizations.weight.original.std() > 0.3


NORMS = ("instance", "batch", "none")
BUILT = [
    {"name": name, "in_channels": 2, "out_channels": 3, "ngf": 4, "norm": norm, "upsampling": how}
    for name in ("resnet_0blocks", "resnet_11blocks", "unet_4", "unet_8", "unet_256")
    for norm in NORMS
    for how in ("transposed", "resize")
]
BUILT += [options | {"dropout": True, "name": "resnet_2blocks"} for options in BUILT[:6]]
BUILT += [
    {"in_channels": 2, "ndf": 4, "norm": norm, "spectral": spectral} | network
    for network in (
        {"name": "basic", "n_layers": 3},
        {"name": "n_layers", "n_layers": 1},
        {"name": "n_layers", "n_layers": 5},
        {"name": "pixel"},
    )
    for norm in NORMS
    for spectral in (False, True)
]


@pytest.mark.parametrize("options", BUILT, ids=lambda options: "-".join(map(str, options.values())))
def test_the_architecture_is_read_off_the_weights_in_any_order(options):
    make = make_discriminator if "ndf" in options else make_generator
    with torch.device("meta"):
        state = make(**options).state_dict()
    defaults = {"dropout": False} if options["name"].startswith("resnet") else {}
    assert infer_architecture(dict(sorted(state.items(), reverse=True))) == defaults | options


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: ResnetGenerator(norm="layer"), "norm="),
        (lambda: ResnetGenerator(upsampling="bilinear"), "upsampling="),
        (lambda: ResnetGenerator(padding="wrap"), "padding="),
        (lambda: init_weights(PatchDiscriminator(ndf=4), "zero"), "init="),
        (lambda: UnetGenerator(n_downs=1), "n_downs=1"),
        (lambda: PatchDiscriminator(n_layers=0), "n_layers=0"),
        (lambda: PatchDiscriminator(ndf=4)(torch.zeros(1, 1, 64, 20)), "64x20"),
        (lambda: make_generator("resnet_1blocks", ngf=4)(torch.zeros(1, 1, 4, 64)), "4x64"),
        (lambda: make_generator("unet_64", ngf=4)(torch.zeros(1, 1, 64, 20)), "64x20"),
        (lambda: make_generator("resnet"), "generator="),
        (lambda: make_generator("unet_100"), "generator="),
        (lambda: make_generator("unet_2"), "generator="),
        (lambda: make_discriminator("patch"), "discriminator="),
        (lambda: make_discriminator("basic", n_layers=2), "n_layers=2"),
        (lambda: infer_architecture({"fc.weight": torch.zeros(3, 3)}), "weights"),
    ],
)
def test_bad_input_is_refused(call, name):
    with pytest.raises(ValueError, match=name):
        call()
