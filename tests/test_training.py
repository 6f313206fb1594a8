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
    with pytest.raises(ValueError, match="run.pt cannot be resumed: it belongs to another run, with seed 3 instead of 4.*delete it"):
        train(seed=4, checkpoint=tmp_path / "run.pt")


def test_a_damaged_or_missing_checkpoint_gets_one_sentence(tmp_path):
    train(checkpoint=tmp_path / "run.pt")
    whole = (tmp_path / "run.pt").read_bytes()
    (tmp_path / "run.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="run.pt is not a readable checkpoint"):
        load_checkpoint(tmp_path / "run.pt")
    with pytest.raises(FileNotFoundError, match="none.pt does not exist or is no file: train first"):
        load_checkpoint(tmp_path / "none.pt")


def test_a_loss_that_is_not_finite_stops_the_training_and_keeps_the_last_good_step(tmp_path, monkeypatch):
    step, calls = CycleGAN.training_step, []

    def broken(self, ct, mri):
        calls.append(1)
        return step(self, ct * torch.nan if len(calls) == 3 else ct, mri)

    monkeypatch.setattr(CycleGAN, "training_step", broken)
    with pytest.raises(FloatingPointError, match="stopped at step 3.*not finite"):
        train(checkpoint=tmp_path / "run.pt", save_every=2)
    assert load_checkpoint(tmp_path / "run.pt")["step"] == 2
    assert_same_bits(train(checkpoint=tmp_path / "run.pt")[0].state_dict(), train()[0].state_dict())


def test_fit_is_the_plain_loop():
    """Six steps once more, written out: sampling, rates, both Adams, averages; to the bit."""
    def start():
        torch.manual_seed(5)
        return torch.rand(5, 1, 32, 32) * 2 - 1, torch.rand(7, 1, 32, 32) * 2 - 1, CycleGAN(SMALL, pool_size=3)

    ct, mri, fitted = start()
    fit(fitted, ct, mri, steps=6, batch_size=2, seed=9, learning_rate=1e-3)
    ct, mri, model = start()
    sampler = torch.Generator().manual_seed(9)
    adams = [torch.optim.Adam(weights, betas=(0.5, 0.999)) for weights in (model.generators, model.critics)]
    for step in range(6):
        batches = [augment(images[torch.randint(len(images), (2,), generator=sampler)], sampler) for images in (ct, mri)]
        for adam, loss in zip(adams, model.training_step(*batches)[:2], strict=True):
            adam.param_groups[0]["lr"] = 1e-3 * min(1.0, 2 * (6 - step) / 7)
            adam.zero_grad()
            loss.backward()
            adam.step()
        for average, network in ((model.averaged["mri"], model.G_ct2mri), (model.averaged["ct"], model.G_mri2ct)):
            for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(weight.detach(), 1 - min(0.998, (2 + step) / (11 + step)))
    assert_same_bits(fitted.state_dict(), model.state_dict())


def test_a_save_that_is_cut_short_leaves_the_last_good_file(tmp_path, monkeypatch):
    train(checkpoint=tmp_path / "run.pt", stop_at=4)

    def full_disk(state, path):
        path.write_bytes(b"half a checkpoint")
        raise OSError("No space left on device")

    monkeypatch.setattr("torch.save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        train(checkpoint=tmp_path / "run.pt")
    assert load_checkpoint(tmp_path / "run.pt")["step"] == 4


class Hostile:
    """Unpickling this would call a function."""

    def __reduce__(self):
        return print, ("a checkpoint ran this",)


def test_a_hostile_checkpoint_is_refused_unread(tmp_path, capsys):
    torch.save({"settings": Hostile()}, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="run.pt is not a readable checkpoint"):
        load_checkpoint(tmp_path / "run.pt")
    assert "a checkpoint ran this" not in capsys.readouterr().out


@pytest.mark.parametrize("other", [{"model.1.weight": torch.zeros(1)}, torch.zeros(3), {"settings": {}, "step": 3}])
def test_a_file_that_fit_did_not_write_gets_one_sentence(tmp_path, other):
    torch.save(other, tmp_path / "run.pt")
    for read in (load_translator, lambda path: train(checkpoint=path)):
        with pytest.raises(ValueError, match="run.pt was not written by `fit`"):
            read(tmp_path / "run.pt")


def test_a_checkpoint_of_another_version_gets_one_sentence(tmp_path):
    train(checkpoint=tmp_path / "run.pt")
    state = load_checkpoint(tmp_path / "run.pt")
    state["settings"]["architecture"]["n_heads"] = 3
    torch.save(state, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="run.pt does not fit this version's networks.*n_heads"):
        load_translator(tmp_path / "run.pt")


@pytest.mark.parametrize(("change", "what"), [
    ({"steps": 9}, "steps 8 instead of 9"), ({"batch_size": 1}, "batch_size 2 instead of 1"), ({"learning_rate": 1e-3}, "learning_rate"),
])
def test_a_run_with_other_settings_is_not_resumed(tmp_path, change, what):
    train(checkpoint=tmp_path / "run.pt", stop_at=2)
    with pytest.raises(ValueError, match=f"run.pt cannot be resumed: it belongs to another run, with {what}"):
        train(checkpoint=tmp_path / "run.pt", **change)


def test_a_run_on_other_data_is_not_resumed(tmp_path):
    train(checkpoint=tmp_path / "run.pt", stop_at=2)
    torch.manual_seed(1)
    images = torch.rand(5, 1, 32, 32)
    with pytest.raises(ValueError, match="belongs to another run, with data"):
        fit(CycleGAN(SMALL, pool_size=3), images, images, steps=8, batch_size=2, seed=3, checkpoint=tmp_path / "run.pt")


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
