"""The CycleGAN's step against a literal transcription, and who learns from what."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers.fit_tensors import SMALL

from ctmri_utils.cyclegan.losses import gradient_penalty
from ctmri_utils.cyclegan.model import CycleGAN, ImagePool, Translator, frozen
from ctmri_utils.settings import Architecture, Objective


def build(seed=0, architecture=SMALL, **objective):
    torch.manual_seed(seed)
    return CycleGAN(architecture, Objective(**objective)).double()


def batches(n=2, m=2, seed=1):
    torch.manual_seed(seed)
    ct = torch.rand(n, 1, 32, 32, dtype=torch.float64) * 2 - 1
    mri = torch.rand(m, 1, 32, 32, dtype=torch.float64) * 2 - 1
    return ct, mri


def literal_losses(model, ct, mri):
    """The published algorithm, one call a line, in the reference's order; no pool."""

    def square(verdict, target):
        return ((verdict - target) ** 2).mean()

    fake_mri, fake_ct = model.G_ct2mri(ct), model.G_mri2ct(mri)
    cycled_ct, cycled_mri = model.G_mri2ct(fake_mri), model.G_ct2mri(fake_ct)
    adversarial = square(model.D_mri(fake_mri), 1) + square(model.D_ct(fake_ct), 1)
    cycle = F.l1_loss(cycled_ct, ct) + F.l1_loss(cycled_mri, mri)
    identity = F.l1_loss(model.G_mri2ct(ct), ct) + F.l1_loss(model.G_ct2mri(mri), mri)
    generator_loss = adversarial + 10 * cycle + 10 * 0.5 * identity

    of_ct = square(model.D_ct(ct), 1) + square(model.D_ct(fake_ct.detach()), 0)
    of_mri = square(model.D_mri(mri), 1) + square(model.D_mri(fake_mri.detach()), 0)
    discriminator_loss = 0.5 * of_ct + 0.5 * of_mri
    return generator_loss, discriminator_loss


def gradients(model, generator_loss, discriminator_loss):
    """Of each loss for its own networks."""
    return (
        *torch.autograd.grad(generator_loss, model.generator_parameters),
        *torch.autograd.grad(discriminator_loss, model.discriminator_parameters),
    )


@pytest.mark.parametrize("sizes", [(2, 2), (1, 3)])
def test_step_equals_the_published_algorithm(sizes):
    model = build(pool_size=0)
    generator_loss, discriminator_loss, _ = model.training_step(*batches(*sizes))
    expected = literal_losses(model, *batches(*sizes))
    # float64; only the batching of the calls differs.
    assert generator_loss.item() == pytest.approx(expected[0].item(), abs=1e-10)
    assert discriminator_loss.item() == pytest.approx(expected[1].item(), abs=1e-10)


def test_gradients_equal_the_published_algorithms():
    model = build(pool_size=0)
    step = model.training_step(*batches())
    ours = gradients(model, step.generator_loss, step.discriminator_loss)
    literal = gradients(model, *literal_losses(model, *batches()))
    for one, other in zip(ours, literal, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_each_loss_teaches_only_its_own_networks():
    model = build()
    generator_loss, discriminator_loss, _ = model.training_step(*batches())
    generator_loss.backward()
    assert all(p.grad is not None for p in model.generator_parameters)
    assert all(p.grad is None for p in model.discriminator_parameters)
    model.zero_grad()
    discriminator_loss.backward()
    assert all(p.grad is None for p in model.generator_parameters)
    assert all(p.grad is not None for p in model.discriminator_parameters)


def test_weights_scale_their_own_part():
    parts = build(pool_size=0).training_step(*batches())[2]
    model = build(pool_size=0)
    ct, mri = batches()
    back_ct = F.l1_loss(model.G_mri2ct(model.G_ct2mri(ct)), ct)
    back_mri = F.l1_loss(model.G_ct2mri(model.G_mri2ct(mri)), mri)
    for cycle_ct, cycle_mri, identity in ((0, 0, 0), (3, 0, 0), (0, 3, 0), (0, 0, 7)):
        weights = {"cycle_ct": cycle_ct, "cycle_mri": cycle_mri, "identity": identity}
        generator_loss, _, shown = build(pool_size=0, **weights).training_step(ct, mri)
        expected = (
            parts["adversarial"]
            + cycle_ct * back_ct
            + cycle_mri * back_mri
            + identity * parts["identity"]
        )
        assert generator_loss.item() == pytest.approx(expected.item(), abs=1e-10)
        assert ("identity" in shown) == bool(identity)


def test_frozen_restores_each_parameter_even_after_an_error():
    network = torch.nn.Conv2d(1, 1, 1)
    network.bias.requires_grad_(False)
    with pytest.raises(RuntimeError), frozen(network):
        assert not network.weight.requires_grad
        raise RuntimeError
    assert network.weight.requires_grad
    assert not network.bias.requires_grad


def test_pool_fills_first_then_swaps_half_of_the_time():
    torch.manual_seed(0)
    pool = ImagePool(50)
    first = torch.arange(50.0).reshape(50, 1, 1, 1)
    assert torch.equal(pool(first), first)
    later = torch.arange(50.0, 2050.0).reshape(-1, 1, 1, 1)
    returned = pool(later)
    older = (returned != later).float().mean().item()
    # 2,000 coin tosses: one sigma is 0.011
    assert older == pytest.approx(0.5, abs=0.06)
    everything = torch.cat([returned.flatten(), pool.images.flatten()])
    # nothing is lost, nothing is doubled
    assert sorted(everything.tolist()) == list(range(50)) + list(range(50, 2050))


def test_pool_of_size_zero_hands_through_and_a_pool_detaches():
    image = torch.rand(2, 1, 4, 4, requires_grad=True)
    assert ImagePool(0)(image) is image
    assert not ImagePool(5)(image).requires_grad


def test_the_pools_are_no_part_of_the_weights():
    model = build()
    model.training_step(*batches())
    assert len(model.pool_ct.images) == 2
    assert not any("pool" in name for name in model.state_dict())


def test_translate_goes_the_way_it_is_asked():
    model = build()
    ct, mri = batches(3, 3)
    torch.testing.assert_close(
        model.translate(ct, "mri", batch_size=2), model.G_ct2mri(ct), atol=1e-12, rtol=0
    )
    torch.testing.assert_close(model.translate(mri, "ct"), model.G_mri2ct(mri), atol=1e-12, rtol=0)
    with torch.no_grad():
        # the last weights move on, their mean does not
        model.G_ct2mri.model[1].weight.mul_(2)
    torch.testing.assert_close(
        model.translate(ct, "mri", averaged=False), model.G_ct2mri(ct), atol=1e-12, rtol=0
    )
    assert not torch.equal(model.translate(ct, "mri"), model.translate(ct, "mri", averaged=False))
    with pytest.raises(ValueError, match="to="):
        model.translate(ct, "mr")


@pytest.mark.parametrize("options", [{"dropout": True}, {"norm": "batch"}])
def test_a_look_in_between_changes_nothing(options):
    """Nor does it depend on chance, or on which other slices are looked at."""
    model = build(architecture=replace(SMALL, **options))
    ct, _ = batches(3, 3)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    chance = torch.get_rng_state()
    for averaged in (True, False):
        together = model.translate(ct, "mri", averaged)
        torch.testing.assert_close(
            torch.cat([model.translate(one, "mri", averaged) for one in ct.split(1)]),
            together,
            atol=1e-12,
            rtol=0,
        )
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(module.training for module in model.modules())


def test_averages_follow_the_literal_recursion():
    model = build()
    expected = None
    for step in range(1, 30):
        with torch.no_grad():
            for weight in model.generator_parameters:
                weight.add_(0.1 * torch.randn_like(weight))
        model.update_averages(step, memory=0.7)
        memory = min(0.7, (1 + step) / (10 + step))
        now = model.G_mri2ct.model[1].weight.detach().clone()
        previous = build().G_mri2ct.model[1].weight.detach() if expected is None else expected
        expected = memory * previous + (1 - memory) * now
    # float64, thirty convex combinations
    torch.testing.assert_close(model.averaged["ct"].model[1].weight, expected, atol=1e-12, rtol=0)


def test_averages_do_not_learn_and_follow_batch_norms_statistics():
    torch.manual_seed(0)
    model = build(architecture=replace(SMALL, norm="batch"))
    model.training_step(*batches())[0].backward()
    assert all(weight.grad is None for weight in model.averaged.parameters())
    model.update_averages(1)
    for mean, statistic in zip(
        model.averaged["mri"].buffers(), model.G_ct2mri.buffers(), strict=True
    ):
        assert torch.equal(mean, statistic)


def test_settings_rebuild_the_model():
    model = build(cycle_ct=3, cycle_mri=4, identity=1, gan_mode="vanilla", pool_size=7)
    again = CycleGAN.from_settings(model.settings()).double()
    again.load_state_dict(model.state_dict())
    assert again.settings() == model.settings()


def test_with_batch_norm_every_batch_goes_through_alone():
    """In one call the statistics of both batches would mix; the reference's calls are separate."""
    architecture = replace(SMALL, norm="batch")
    step = build(architecture=architecture, pool_size=0).training_step(*batches())
    expected = literal_losses(build(architecture=architecture, pool_size=0), *batches())
    assert step.generator_loss.item() == pytest.approx(expected[0].item(), abs=1e-10)
    assert step.discriminator_loss.item() == pytest.approx(expected[1].item(), abs=1e-10)


@pytest.mark.parametrize("mode", ["hinge", "wgangp"])
def test_hinge_and_wgangp_are_their_formulas(mode):
    ct, mri = batches()
    model = build(pool_size=0, gan_mode=mode, cycle_ct=0, cycle_mri=0, identity=0)
    torch.manual_seed(7)
    generator_loss, discriminator_loss, _ = model.training_step(ct, mri)
    fake_mri, fake_ct = model.G_ct2mri(ct), model.G_mri2ct(mri)
    fooled = model.D_mri(fake_mri).mean() + model.D_ct(fake_ct).mean()
    assert generator_loss.item() == pytest.approx(-fooled.item(), abs=1e-10)

    expected = 0
    torch.manual_seed(7)
    for judge, real, fake in ((model.D_mri, mri, fake_mri), (model.D_ct, ct, fake_ct)):
        if mode == "hinge":
            expected += 0.5 * (F.relu(1 - judge(real)).mean() + F.relu(1 + judge(fake)).mean())
        else:
            expected += judge(fake).mean() - judge(real).mean()
            expected += 10 * gradient_penalty(judge, real, fake)
    assert discriminator_loss.item() == pytest.approx(expected.item(), abs=1e-10)


@pytest.mark.parametrize(
    "options",
    [
        {"generator": "unet_32"},
        {"discriminator": "pixel"},
        {"dropout": True},
        {"upsampling": "resize"},
        {"spectral": True},
        {"norm": "none"},
        {"init": "orthogonal"},
        {"n_blocks": 0},
        {"n_layers": 2},
    ],
)
def test_every_architecture_trains_a_step(options):
    model = build(architecture=replace(SMALL, **options))
    generator_loss, discriminator_loss, _ = model.training_step(*batches())
    (generator_loss + discriminator_loss).backward()
    assert all(
        weight.grad is not None and weight.grad.isfinite().all()
        for weight in (*model.generator_parameters, *model.discriminator_parameters)
    )


def test_channels_may_differ_but_not_with_an_identity_loss():
    architecture = replace(SMALL, ct_channels=2)
    with pytest.raises(ValueError, match="identity=5"):
        build(architecture=architecture)
    model = build(architecture=architecture, identity=0)
    ct, mri = batches()
    generator_loss, discriminator_loss, _ = model.training_step(torch.cat([ct, -ct], 1), mri)
    (generator_loss + discriminator_loss).backward()
    assert model.translate(mri, "ct").shape == (2, 2, 32, 32)
    assert model.translate(torch.cat([ct, ct], 1), "mri").shape == (2, 1, 32, 32)


def test_slices_of_odd_size_train_and_come_back_in_their_size():
    model = build()
    torch.manual_seed(3)
    ct, mri = torch.rand(2, 1, 1, 37, 42, dtype=torch.float64) * 2 - 1
    assert model.training_step(ct, mri)[0].isfinite()
    assert model.translate(ct, "mri").shape == (1, 1, 37, 42)


def test_blank_slices_do_not_break_instance_norm():
    model = build()
    blank = torch.full((2, 1, 32, 32), -1.0, dtype=torch.float64)
    generator_loss, discriminator_loss, _ = model.training_step(blank, blank)
    (generator_loss + discriminator_loss).backward()
    assert all(
        weight.grad.isfinite().all()
        for weight in (*model.generator_parameters, *model.discriminator_parameters)
    )


def test_a_translator_translates_and_refuses_unknown_networks():
    assert Translator(SMALL).translate(torch.zeros(1, 1, 32, 32), "ct").shape == (1, 1, 32, 32)
    with pytest.raises(ValueError, match="unet_100"):
        Translator(Architecture(generator="unet_100"))
