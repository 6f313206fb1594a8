"""The CycleGAN's step against a literal transcription, and who learns from what."""
import pytest
import torch
import torch.nn.functional as F

from ctmri_utils.translators import Architecture, CycleGAN, ImagePool, LossWeights, frozen

SMALL = Architecture(ngf=4, ndf=4, n_blocks=1, n_layers=1)


def build(seed=0, **options):
    torch.manual_seed(seed)
    return CycleGAN(SMALL, **options).double()


def batches(n=2, m=2, seed=1):
    torch.manual_seed(seed)
    return torch.rand(n, 1, 32, 32, dtype=torch.float64) * 2 - 1, torch.rand(m, 1, 32, 32, dtype=torch.float64) * 2 - 1


def literal_losses(model, ct, mri):
    """The published algorithm, one call a line, in the reference's order; no pool."""
    def square(verdict, target):
        return ((verdict - target) ** 2).mean()

    fake_mri, fake_ct = model.G_ct2mri(ct), model.G_mri2ct(mri)
    cycled_ct, cycled_mri = model.G_mri2ct(fake_mri), model.G_ct2mri(fake_ct)
    generators = square(model.D_mri(fake_mri), 1) + square(model.D_ct(fake_ct), 1)
    generators = generators + 10 * F.l1_loss(cycled_ct, ct) + 10 * F.l1_loss(cycled_mri, mri)
    generators = generators + 10 * 0.5 * F.l1_loss(model.G_mri2ct(ct), ct) + 10 * 0.5 * F.l1_loss(model.G_ct2mri(mri), mri)
    critics = 0.5 * (square(model.D_ct(ct), 1) + square(model.D_ct(fake_ct.detach()), 0))
    critics = critics + 0.5 * (square(model.D_mri(mri), 1) + square(model.D_mri(fake_mri.detach()), 0))
    return generators, critics


@pytest.mark.parametrize("sizes", [(2, 2), (1, 3)])
def test_step_equals_the_published_algorithm(sizes):
    model = build(pool_size=0)
    generators, critics, _ = model.training_step(*batches(*sizes))
    expected = literal_losses(model, *batches(*sizes))
    # float64; only the batching of the calls differs.
    assert generators.item() == pytest.approx(expected[0].item(), abs=1e-10)
    assert critics.item() == pytest.approx(expected[1].item(), abs=1e-10)


def test_gradients_equal_the_published_algorithms():
    model = build(pool_size=0)
    generators, critics, _ = model.training_step(*batches())
    ours = torch.autograd.grad(generators, model.generators) + torch.autograd.grad(critics, model.critics)
    generators, critics = literal_losses(model, *batches())
    literal = torch.autograd.grad(generators, model.generators) + torch.autograd.grad(critics, model.critics)
    for one, other in zip(ours, literal, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_each_loss_teaches_only_its_own_networks():
    model = build()
    generators, critics, _ = model.training_step(*batches())
    generators.backward()
    assert all(p.grad is not None for p in model.generators) and all(p.grad is None for p in model.critics)
    model.zero_grad()
    critics.backward()
    assert all(p.grad is None for p in model.generators) and all(p.grad is not None for p in model.critics)


def test_weights_scale_their_own_part():
    parts = build(pool_size=0).training_step(*batches())[2]
    for weights in (LossWeights(cycle=0, identity=0), LossWeights(cycle=3, identity=0), LossWeights(cycle=0, identity=7)):
        generators = build(pool_size=0, weights=weights).training_step(*batches())[0]
        expected = parts["adversarial"] + weights.cycle * parts["cycle"] + weights.identity * parts["identity"]
        assert generators.item() == pytest.approx(expected.item(), abs=1e-10)


def test_frozen_lets_go_even_after_an_error():
    network = torch.nn.Conv2d(1, 1, 1)
    with pytest.raises(RuntimeError), frozen(network):
        assert not network.weight.requires_grad
        raise RuntimeError
    assert network.weight.requires_grad


def test_pool_fills_first_then_swaps_half_of_the_time():
    torch.manual_seed(0)
    pool = ImagePool(50)
    first = torch.arange(50.0).reshape(50, 1, 1, 1)
    assert torch.equal(pool(first), first)
    later = torch.arange(50.0, 2050.0).reshape(-1, 1, 1, 1)
    returned = pool(later)
    older = (returned != later).float().mean().item()
    assert older == pytest.approx(0.5, abs=0.06)                  # 2,000 coin tosses: one sigma is 0.011
    everything = torch.cat([returned.flatten(), pool.images.flatten()])
    assert sorted(everything.tolist()) == list(range(50)) + list(range(50, 2050))       # nothing is lost, nothing is doubled


def test_pool_of_size_zero_hands_through_and_a_pool_detaches():
    image = torch.rand(2, 1, 4, 4, requires_grad=True)
    assert ImagePool(0)(image) is image
    assert not ImagePool(5)(image).requires_grad


def test_state_with_a_filled_pool_loads_into_a_new_model():
    model = build()
    model.training_step(*batches())
    other = build(seed=9)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.pool_ct.images, model.pool_ct.images) and len(other.pool_ct.images) == 2


@pytest.mark.filterwarnings("ignore:for images. copying from a non-meta parameter")     # meta holds no values: only the place counts
def test_the_pool_stays_on_its_device_when_a_file_from_another_is_loaded():
    state = ImagePool(5).state_dict() | {"images": torch.rand(2, 1, 8, 8)}
    with torch.device("meta"):
        pool = ImagePool(5)
    pool.load_state_dict(state)
    assert pool.images.device.type == "meta" and pool.images.shape == (2, 1, 8, 8)


def test_translate_goes_the_way_it_is_asked():
    model, (ct, mri) = build(), batches(3, 3)
    torch.testing.assert_close(model.translate(ct, "mri", batch_size=2), model.G_ct2mri(ct), atol=1e-12, rtol=0)
    torch.testing.assert_close(model.translate(mri, "ct"), model.G_mri2ct(mri), atol=1e-12, rtol=0)
    with torch.no_grad():
        model.G_ct2mri.model[1].weight.mul_(2)                   # the last weights move on, their mean does not
    torch.testing.assert_close(model.translate(ct, "mri", averaged=False), model.G_ct2mri(ct), atol=1e-12, rtol=0)
    assert not torch.equal(model.translate(ct, "mri"), model.translate(ct, "mri", averaged=False))
    with pytest.raises(ValueError, match="to='mr' is not a modality"):
        model.translate(ct, "mr")


def test_averages_follow_the_literal_recursion():
    model, expected = build(), None
    for step in range(1, 30):
        with torch.no_grad():
            for weight in model.generators:
                weight.add_(0.1 * torch.randn_like(weight))
        model.update_averages(step, memory=0.7)
        memory, now = min(0.7, (1 + step) / (10 + step)), model.G_mri2ct.model[1].weight.detach().clone()
        previous = build().G_mri2ct.model[1].weight.detach() if expected is None else expected
        expected = memory * previous + (1 - memory) * now
    # float64, thirty convex combinations
    torch.testing.assert_close(model.averaged["ct"].model[1].weight, expected, atol=1e-12, rtol=0)


def test_averages_do_not_learn_and_follow_batch_norms_statistics():
    torch.manual_seed(0)
    model = CycleGAN(Architecture(ngf=4, ndf=4, n_blocks=1, n_layers=1, norm="batch"))
    model.training_step(*(batch.float() for batch in batches()))[0].backward()
    assert all(weight.grad is None for weight in model.averaged.parameters())
    model.update_averages(1)
    for mean, statistic in zip(model.averaged["mri"].buffers(), model.G_ct2mri.buffers(), strict=True):
        assert torch.equal(mean, statistic)


def test_settings_rebuild_the_model():
    model = build(weights=LossWeights(3, 1), gan_mode="vanilla", pool_size=7)
    again = CycleGAN.from_settings(model.settings()).double()
    again.load_state_dict(model.state_dict())
    assert again.settings() == model.settings()
