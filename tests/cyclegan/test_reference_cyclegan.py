"""The training against the published algorithm, written out in reference_cyclegan.py.

Thirty steps from the same weights and data.
"""

import pytest
import torch
from helpers.reference_cyclegan import Pool, linear_rate, patch_discriminator, train

from ctmri_utils.cyclegan.architectures import make_discriminator
from ctmri_utils.cyclegan.model import CycleGAN, ImagePool
from ctmri_utils.cyclegan.networks import init_weights
from ctmri_utils.cyclegan.training import Trainer
from ctmri_utils.settings import Architecture, Objective, Training

STEPS = 30


@pytest.mark.parametrize("n_layers", [1, 3])
def test_the_patchgan_computes_what_the_paper_writes(n_layers):
    torch.manual_seed(0)
    discriminator = init_weights(
        make_discriminator("n_layers", 2, ndf=4, n_layers=n_layers), gain=0.2
    ).double()
    image = torch.rand(2, 2, 40, 32, dtype=torch.float64) * 2 - 1
    # The same arithmetic in another order, float64.
    torch.testing.assert_close(
        discriminator(image),
        patch_discriminator(discriminator.state_dict(), image),
        atol=1e-12,
        rtol=0,
    )


@pytest.mark.parametrize(("batch", "pool_size"), [(1, 50), (2, 0), (2, 8)])
def test_thirty_steps_are_those_of_the_published_algorithm(batch, pool_size):
    """The reference's defaults and its linear schedule, over 15 + 15 steps.

    Float64, where only the order of additions differs.
    """
    torch.manual_seed(0)
    model = CycleGAN(
        Architecture(ngf=4, ndf=4, n_blocks=2, n_layers=2), Objective(pool_size=pool_size)
    ).double()
    states = {"G_A": model.G_ct2mri, "G_B": model.G_mri2ct, "D_A": model.D_mri, "D_B": model.D_ct}
    states = {
        name: {key: value.clone() for key, value in network.state_dict().items()}
        for name, network in states.items()
    }
    ct, mri = [
        list(torch.rand(STEPS, batch, 1, 32, 32, dtype=torch.float64) * 2 - 1) for _ in range(2)
    ]

    def rate(step):
        return 2e-4 * linear_rate(step + 1, STEPS // 2, STEPS // 2)

    torch.manual_seed(1)
    literal = train(states, ct, mri, rate=rate, pool_size=pool_size)
    torch.manual_seed(1)
    trainer = Trainer(model, Training(steps=STEPS, batch_size=batch))
    for step, (expected, *images) in enumerate(zip(literal, ct, mri, strict=True)):
        assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(rate(step), rel=1e-12)
        parts = trainer.train_one_step(*images)
        trainer.adapt_learning_rate(None)
        found = {
            "adversarial": expected["G_A"] + expected["G_B"],
            "cycle": (expected["cycle_A"] + expected["cycle_B"]) / 10,
            "identity": (expected["idt_A"] + expected["idt_B"]) / 5,
            "discriminator_ct": expected["D_B"],
            "discriminator_mri": expected["D_A"],
        }
        assert parts == pytest.approx(found, abs=1e-9), step
    # all networks moved on
    assert all(abs(literal[-1][name] - literal[0][name]) > 1e-3 for name in literal[0])


def test_the_pools_are_one():
    torch.manual_seed(0)
    fakes = torch.rand(20, 3, 1, 2, 2)
    torch.manual_seed(1)
    literal = []
    pool = Pool(5)
    for batch in fakes:
        literal.append(pool.query(batch))
    torch.manual_seed(1)
    pool = ImagePool(5)
    assert all(
        torch.equal(pool(batch), expected) for batch, expected in zip(fakes, literal, strict=True)
    )
    assert not torch.equal(torch.stack(literal), fakes)


def test_the_linear_schedule_never_trains_at_zero():
    assert [linear_rate(epoch, 3, 2) for epoch in range(1, 6)] == pytest.approx(
        [1, 1, 1, 2 / 3, 1 / 3]
    )
