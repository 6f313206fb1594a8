"""The remedies as switches of one CycleGAN.

Each adds exactly its own loss, and an objective of 0 costs nothing.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ctmri_utils.cyclegan import remedies
from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.cyclegan.networks import ResnetBlock
from ctmri_utils.cyclegan.remedies import PatchContrast, head_in
from ctmri_utils.masks import mri_head_mask
from ctmri_utils.scans.phantom import synthetic_patients
from ctmri_utils.settings import Architecture, Objective
from ctmri_utils.units import CT_MAPS, HU, mri_scale

SMALL = Architecture(ngf=4, ndf=4, n_blocks=2, n_layers=1)
PLAIN = {"identity": 0.0, "pool_size": 0}


def build(architecture=SMALL, seed=0, **objective):
    torch.manual_seed(seed)
    return CycleGAN(architecture, Objective(**PLAIN | objective)).double()


@pytest.fixture(scope="module")
def slices():
    """CT and MR of two heads, float64 (2, 1, 32, 32) in [-1, 1]."""
    heads = synthetic_patients(2, 32, seed=4)
    mri = np.stack(
        [mri_scale(image, mri_head_mask(image)).to_network(image) for image in heads.mri]
    )
    return tuple(
        torch.from_numpy(images)[:, None].double() for images in (HU.to_network(heads.ct_hu), mri)
    )


def make_step(slices, architecture=SMALL, **objective):
    """A model and its first training step."""
    model = build(architecture, **objective)
    torch.manual_seed(7)
    return model, model.training_step(*slices)


STRUCTURE = {
    "gradient": remedies.gradient_loss,
    "mind": remedies.mind_loss,
    "correlation": remedies.correlation_loss,
}


@pytest.mark.parametrize("name", STRUCTURE)
def test_a_structure_loss_adds_itself_both_ways(slices, name):
    """float64; 1e-9 is for the other order of the sum."""
    ct, mri = slices
    _, plain = make_step(slices)
    model, step = make_step(slices, **{name: 2.5})
    loss = STRUCTURE[name]
    expected = loss(model.G_ct2mri(ct), ct) + loss(model.G_mri2ct(mri), mri)
    assert step.losses[name].item() == pytest.approx(expected.item(), abs=1e-9)
    assert expected > 0.01
    added = step.generator_loss - plain.generator_loss
    assert added.item() == pytest.approx(2.5 * expected.item(), abs=1e-9)


@pytest.mark.parametrize("name", ["linear", "piecewise"])
def test_mask_loss_looks_at_the_fake_ct_in_hu(slices, name):
    architecture = replace(SMALL, ct_map=name)
    _, mri = slices
    _, plain = make_step(slices, architecture)
    model, step = make_step(slices, architecture, mask=3)
    head = torch.from_numpy(mri_head_mask(mri.float().numpy()))
    fake_ct_hu = 1000 * CT_MAPS[name].decode(model.G_mri2ct(mri))
    expected = (((fake_ct_hu + 300) / 50).sigmoid() - head.double()).abs().mean()
    assert step.losses["mask"].item() == pytest.approx(expected.item(), abs=1e-9)
    added = step.generator_loss - plain.generator_loss
    assert added.item() == pytest.approx(3 * expected.item(), abs=1e-9)
    assert torch.equal(head_in(mri), head)


def test_supervision_is_the_distance_to_the_partner(slices):
    ct, mri = slices
    model, step = make_step(slices, supervised=100, cycle_ct=0, cycle_mri=0, adversarial=0)
    expected = F.l1_loss(model.G_ct2mri(ct), mri) + F.l1_loss(model.G_mri2ct(mri), ct)
    assert step.generator_loss.item() == pytest.approx(100 * expected.item(), abs=1e-9)
    assert set(step.losses) == {"supervised"}
    assert step.discriminator_loss.item() == 0
    assert not any(weight.requires_grad for weight in model.discriminator_parameters)


def test_the_verdicts_have_a_weight(slices):
    _, whole = make_step(slices)
    _, quarter = make_step(slices, adversarial=0.25)
    taken_away = whole.generator_loss - quarter.generator_loss
    adversarial = whole.losses["adversarial"].item()
    assert taken_away.item() == pytest.approx(0.75 * adversarial, abs=1e-9)


def test_translation_noise_is_on_the_way_back_only(slices):
    ct, mri = slices
    _, plain = make_step(slices)
    model, step = make_step(slices, translation_noise=0.3)
    torch.manual_seed(7)
    fake_mri, fake_ct = model.G_ct2mri(ct), model.G_mri2ct(mri)
    back = F.l1_loss(model.G_mri2ct(fake_mri + 0.3 * torch.randn_like(fake_mri)), ct)
    back = back + F.l1_loss(model.G_ct2mri(fake_ct + 0.3 * torch.randn_like(fake_ct)), mri)
    assert step.losses["cycle"].item() == pytest.approx(back.item(), abs=1e-9)
    assert step.discriminator_loss.item() == pytest.approx(
        plain.discriminator_loss.item(), abs=1e-9
    )


def literal_contrast(contrast, generator, translation, original, seed):
    """Park et al. 2020, place by place; the layers are found by their kind."""
    torch.manual_seed(seed)
    features = []
    for image in (translation, original):
        seen = []
        blocks = 0
        for i, layer in enumerate(generator.model):
            image = layer(image)
            blocks += isinstance(layer, ResnetBlock)
            halving = isinstance(layer, torch.nn.Conv2d) and layer.stride == (2, 2)
            # Of 2 blocks the second is in the middle.
            if i == 0 or halving or (isinstance(layer, ResnetBlock) and blocks in (1, 2)):
                seen.append(image.clone())
        features.append(seen)
    total = 0
    for head, ours, theirs in zip(contrast.heads, *features, strict=True):
        places = torch.randperm(ours[0, 0].numel())[:256].tolist()
        for image in range(len(ours)):
            directions = []
            for seen in (ours, theirs):
                vectors = [head(seen[image].flatten(1)[:, place]) for place in places]
                directions.append([vector / vector.norm() for vector in vectors])
            for s, query in enumerate(directions[0]):
                logits = torch.stack([query @ key / 0.07 for key in directions[1]])
                total = total - (logits[s] - logits.logsumexp(0)) / len(places) / len(ours)
    return total / len(contrast.heads)


# Without a norm a ReLU works in place on what was seen.
@pytest.mark.parametrize("norm", ["instance", "none"])
def test_patch_contrast_is_the_literal_loop(slices, norm):
    model = build(replace(SMALL, norm=norm), nce=1)
    ct, mri = (image[:, :, :16, :16] for image in slices)
    torch.manual_seed(11)
    found = model.contrast["mri"](model.G_ct2mri, mri, ct)
    with torch.no_grad():
        expected = literal_contrast(model.contrast["mri"], model.G_ct2mri, mri, ct, seed=11)
    assert len(model.contrast["mri"].heads) == 5
    assert found.item() == pytest.approx(expected.item(), abs=1e-9)


def test_cut_needs_no_cycle_and_its_heads_learn(slices):
    model, step = make_step(slices, nce=10, cycle_ct=0, cycle_mri=0)
    losses = step.losses
    assert set(losses) == {"adversarial", "nce", "discriminator_ct", "discriminator_mri"}
    assert step.generator_loss.item() == pytest.approx(
        (losses["adversarial"] + 10 * losses["nce"]).item(), abs=1e-9
    )
    step.generator_loss.backward()
    learned = {id(weight) for weight in model.generator_parameters}
    assert all(
        id(weight) in learned and weight.grad.abs().sum() > 0
        for weight in model.contrast.parameters()
        if weight.ndim == 2
    )


def test_cut_also_contrasts_what_needs_no_translation(slices):
    """Park et al. 2020: the mean of both contrasts; the places are drawn in this order."""
    ct, mri = slices
    model, step = make_step(slices, nce=0.5, nce_identity=0.5, cycle_ct=0, cycle_mri=0)
    losses = step.losses
    torch.manual_seed(7)
    both = (("mri", model.G_ct2mri), ("ct", model.G_mri2ct))
    contrasts = [
        model.contrast[to](network, network(given), given)
        for pair in ((ct, mri), (mri, ct))
        for (to, network), given in zip(both, pair, strict=True)
    ]
    assert losses["nce"].item() == pytest.approx((contrasts[0] + contrasts[1]).item(), abs=1e-9)
    assert losses["nce_identity"].item() == pytest.approx(
        (contrasts[2] + contrasts[3]).item(), abs=1e-9
    )
    assert step.generator_loss.item() == pytest.approx(
        (losses["adversarial"] + sum(contrasts) / 2).item(), abs=1e-9
    )


def test_the_other_networks_start_as_those_of_a_plain_cyclegan():
    plain, contrasted = build(seed=5).state_dict(), build(seed=5, nce=1).state_dict()
    assert all(torch.equal(weight, contrasted[name]) for name, weight in plain.items())


@pytest.mark.parametrize("name", CT_MAPS)
def test_ct_maps_come_back(name):
    """float64 rounding of a few sums and products."""
    ct = torch.linspace(-1, 1, 2001, dtype=torch.float64)[None, None, None]
    assert torch.allclose(CT_MAPS[name].decode(CT_MAPS[name].encode(ct)), ct, atol=1e-12)
    assert CT_MAPS[name].encode(ct).shape[1] == CT_MAPS[name].channels
    assert CT_MAPS[name].encode(ct).abs().max() <= 1


def test_piecewise_map_gives_soft_tissue_half_of_the_range():
    hu = torch.tensor([-1000.0, -550, -100, 25, 150, 575, 1000])
    assert CT_MAPS["piecewise"].encode(HU.to_network(hu)).tolist() == pytest.approx(
        [-1, -0.75, -0.5, 0, 0.5, 0.75, 1], abs=1e-6
    )


def test_two_windows_believe_the_narrow_one_only_inside_it():
    wide = HU.to_network(torch.tensor([[40.0, 700, -500, 90]]))
    narrow = torch.tensor([[0.2, -0.9, 0.9, 1.0]])
    decoded = CT_MAPS["two_windows"].decode(torch.stack([wide, narrow], 1)[:, :, None])
    assert HU.from_network(decoded).flatten().tolist() == pytest.approx(
        [50, 700, -500, 150], abs=1e-3
    )


@pytest.mark.parametrize("name", CT_MAPS)
def test_a_mapped_translator_takes_and_gives_linear_ct(slices, name):
    """Seen from outside one channel in [-1, 1], whatever the networks see."""
    model = build(replace(SMALL, ct_map=name))
    ct, mri = slices
    coded = CT_MAPS[name]
    assert torch.equal(model.translate(mri, "ct"), coded.decode(model.averaged["ct"](mri)))
    assert torch.equal(model.translate(ct, "mri"), model.averaged["mri"](coded.encode(ct)))
    assert model.translate(mri, "ct").shape == ct.shape
    step = model.training_step(ct, mri)
    fake_mri = model.G_ct2mri(coded.encode(ct))
    assert torch.isfinite(step.generator_loss + step.discriminator_loss)
    assert model.D_ct.model[0].in_channels == coded.channels
    assert F.l1_loss(model.G_mri2ct(fake_mri), coded.encode(ct)).item() == pytest.approx(
        (
            model.training_step(ct, mri).losses["cycle"]
            - F.l1_loss(model.G_ct2mri(model.G_mri2ct(mri)), mri)
        ).item(),
        abs=1e-9,
    )


def test_settings_rebuild_a_remedied_model():
    model = build(replace(SMALL, ct_map="piecewise"), nce=1, mind=2)
    again = CycleGAN.from_settings(model.settings())
    assert again.settings() == model.settings()
    assert again.state_dict().keys() == model.state_dict().keys()
    older = {
        name: value
        for name, value in build().settings().items()
        if name not in ("ct_map", "mind", "nce", "mask")
    }
    assert CycleGAN.from_settings(older).settings() == build().settings()


@pytest.mark.parametrize(
    ("architecture", "objective", "sentence"),
    [
        (
            {"ct_map": "two_windows"},
            {"identity": 5},
            "identity=5",
        ),
        ({"ct_map": "two_windows"}, {"nce": 1}, "nce=1"),
        ({"generator": "unet_32"}, {"nce": 1}, "nce needs"),
        ({"n_blocks": 0}, {"nce": 1}, "nce needs"),
        (
            {"ct_map": "two_windows"},
            {"nce_identity": 1},
            "nce_identity=1",
        ),
        ({"ct_channels": 3}, {"mask": 1}, "mask=1"),
        ({"ct_map": "log"}, {}, "ct_map="),
    ],
)
def test_what_does_not_fit_is_refused(architecture, objective, sentence):
    with pytest.raises(ValueError, match=sentence):
        CycleGAN(
            replace(SMALL, **architecture),
            Objective(**PLAIN | objective),
        )


def test_an_empty_mask_is_refused(slices):
    ct, mri = slices
    with pytest.raises(ValueError, match="slice 1 .* empty"):
        build(mask=1).training_step(ct, torch.cat([mri[:1], torch.full_like(mri[:1], -1)]))


def test_one_block_has_four_layers_to_contrast():
    assert len(PatchContrast(build(Architecture(ngf=4, n_blocks=1)).G_ct2mri).heads) == 4
