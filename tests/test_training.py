"""fit: resumes the very same run, draws unpaired, keeps what it has when something breaks."""
import pytest
import torch

from ctmri_utils.training import augment, fit, learning_rate_factor, load_checkpoint, load_translator
from ctmri_utils.translators import Architecture, CycleGAN

SMALL = Architecture(ngf=4, ndf=4, n_blocks=1, n_layers=1)


def train(seed=3, **options):
    torch.manual_seed(seed)
    ct, mri = torch.rand(5, 1, 32, 32) * 2 - 1, torch.rand(7, 1, 32, 32) * 2 - 1
    model = CycleGAN(SMALL, pool_size=3)
    losses = fit(model, ct, mri, **{"steps": 8, "batch_size": 2, "seed": seed} | options)
    return model, losses


def assert_same_bits(one, other):
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_same_seed_same_bits_other_seed_other_bits():
    one, two, other = train()[0], train()[0], train(seed=4)[0]
    assert_same_bits(one.state_dict(), two.state_dict())
    assert not torch.equal(one.G_ct2mri.model[1].weight, other.G_ct2mri.model[1].weight)


def test_resume_continues_the_very_same_run(tmp_path):
    straight, losses = train(checkpoint=tmp_path / "straight.pt")
    train(checkpoint=tmp_path / "broken.pt", stop_at=5)
    torch.manual_seed(99)                                        # whatever happened in between
    resumed, resumed_losses = train(checkpoint=tmp_path / "broken.pt")
    assert_same_bits(straight.state_dict(), resumed.state_dict())
    assert losses == resumed_losses and len(losses) == 8


def test_a_finished_run_is_not_trained_again(tmp_path):
    train(checkpoint=tmp_path / "run.pt")
    steps = []
    _, losses = train(checkpoint=tmp_path / "run.pt", on_step=lambda step, _: steps.append(step))
    assert steps == [] and len(losses) == 8


def test_an_interrupt_keeps_the_last_step(tmp_path):
    def interrupt(step, losses):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(checkpoint=tmp_path / "run.pt", on_step=interrupt)
    assert load_checkpoint(tmp_path / "run.pt")["step"] == 4
    assert_same_bits(train(checkpoint=tmp_path / "run.pt")[0].state_dict(), train()[0].state_dict())


def test_an_interrupt_within_a_step_resumes_the_very_same_run(tmp_path, monkeypatch):
    step, calls = CycleGAN.training_step, []

    def interrupted(self, ct, mri):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return step(self, ct, mri)

    monkeypatch.setattr(CycleGAN, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(checkpoint=tmp_path / "run.pt", save_every=2)
    assert load_checkpoint(tmp_path / "run.pt")["step"] == 4
    assert_same_bits(train(checkpoint=tmp_path / "run.pt")[0].state_dict(), train()[0].state_dict())


def test_load_translator_rebuilds_the_trained_model(tmp_path):
    model, _ = train(checkpoint=tmp_path / "run.pt")
    images = torch.rand(2, 1, 32, 32) * 2 - 1
    assert torch.equal(load_translator(tmp_path / "run.pt").translate(images, "mri"), model.translate(images, "mri"))


def test_another_seed_or_architecture_is_not_resumed(tmp_path):
    train(checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="seed 3.*seed 4.*use another file"):
        train(seed=4, checkpoint=tmp_path / "run.pt")


def test_a_damaged_or_missing_checkpoint_gets_one_sentence(tmp_path):
    train(checkpoint=tmp_path / "run.pt")
    whole = (tmp_path / "run.pt").read_bytes()
    (tmp_path / "run.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="run.pt is not a readable checkpoint"):
        load_checkpoint(tmp_path / "run.pt")
    with pytest.raises(FileNotFoundError, match="none.pt does not exist: train first"):
        load_checkpoint(tmp_path / "none.pt")


def test_a_loss_that_is_not_finite_stops_the_training_and_keeps_the_last_good_step(tmp_path):
    model = CycleGAN(SMALL)
    ct = torch.rand(5, 1, 32, 32)
    fit(model, ct, ct, steps=4, stop_at=2, batch_size=2, seed=0, checkpoint=tmp_path / "run.pt")
    good = load_checkpoint(tmp_path / "run.pt")
    with pytest.raises(FloatingPointError, match="stopped at step 3.*not finite"):
        fit(model, ct * torch.nan, ct, steps=4, batch_size=2, seed=0, checkpoint=tmp_path / "run.pt")
    after = load_checkpoint(tmp_path / "run.pt")
    assert after["step"] == 2
    assert_same_bits(after["model"], good["model"])


def test_learning_rate_is_flat_then_falls_and_never_reaches_zero():
    factors = [learning_rate_factor(step, 100) for step in range(100)]
    assert factors[:50] == [1.0] * 50 and all(a > b for a, b in zip(factors[51:], factors[52:], strict=False))
    assert 0 < factors[-1] < 0.03


def test_augment_only_moves_whole_pixels_and_mirrors():
    """Every augmented slice is one of the 3 x 3 shifts of the slice or of its mirror image, with background moving in."""
    image = torch.rand(1, 1, 32, 32) * 2 - 1
    padded = torch.nn.functional.pad(image, [1] * 4, value=-1)
    shifts = [padded[..., top:top + 32, left:left + 32] for top in range(3) for left in range(3)]
    allowed = shifts + [shift.flip(-1) for shift in shifts]
    moved = augment(image.expand(400, -1, -1, -1), torch.Generator().manual_seed(0))
    seen = [next(i for i, candidate in enumerate(allowed) if torch.equal(candidate[0], one)) for one in moved]
    assert set(seen) == set(range(18))
    assert sum(i >= 9 for i in seen) / len(seen) == pytest.approx(0.5, abs=0.1)          # 400 coin tosses: one sigma is 0.025
