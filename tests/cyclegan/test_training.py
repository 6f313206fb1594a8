"""fit: the plain loop, its schedules, its options, and what it says when something breaks."""

import math
import threading

import pytest
import torch
from helpers.fit_tensors import SMALL, assert_same_bits, fit_tensors, small_model, train_small

from ctmri_utils.cyclegan.batches import Slices, UnpairedBatches
from ctmri_utils.cyclegan.fast_cpu import use_fast_layers
from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.cyclegan.resume import load_checkpoint
from ctmri_utils.cyclegan.training import Trainer, schedule
from ctmri_utils.settings import Objective, Training


def test_same_seed_same_bits_other_seed_other_bits():
    one, two, other = train_small()[0], train_small()[0], train_small(seed=4)[0]
    assert_same_bits(one.state_dict(), two.state_dict())
    assert not torch.equal(one.G_ct2mri.model[1].weight, other.G_ct2mri.model[1].weight)


def test_a_training_runs_in_any_thread():
    models = []
    thread = threading.Thread(target=lambda: models.append(train_small()[0]))
    thread.start()
    thread.join()
    assert_same_bits(models[0].state_dict(), train_small()[0].state_dict())


def test_fit_is_the_plain_loop():
    """Six steps once more, written out: batches, rates, both Adams, averages; to the bit."""
    options = {
        "steps": 6,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "beta1": 0.4,
        "beta2": 0.9,
        "ema": 0.3,
        "decay_share": 1 / 3,
    }
    fitted, ct, mri = small_model()
    fit_tensors(fitted, ct, mri, seed=9, **options)
    model, ct, mri = small_model()
    use_fast_layers(model)
    batches = UnpairedBatches(Slices(ct, mri), Training(**options), seed=9)
    adams = [
        torch.optim.Adam(weights, betas=(0.4, 0.9), fused=True)
        for weights in (model.generator_parameters, model.discriminator_parameters)
    ]
    for step in range(6):
        for adam, loss in zip(adams, model.training_step(*batches(step))[:2], strict=True):
            adam.param_groups[0]["lr"] = 1e-3 * min(1.0, (6 - step) / 3)
            adam.zero_grad()
            loss.backward()
            adam.step()
        for to, network in (("mri", model.G_ct2mri), ("ct", model.G_mri2ct)):
            both = model.averaged[to].parameters(), network.parameters()
            for mean, weight in zip(*both, strict=True):
                mean.lerp_(weight.detach(), 1 - min(0.3, (2 + step) / (11 + step)))
    assert_same_bits(fitted.state_dict(), model.state_dict())


def rates(shown, **options):
    """The learning rate of each step as a share of the first; the scheduler is shown metrics."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], 2e-4)
    scheduler = schedule(optimizer, Training(steps=10, **options))
    for metrics in shown:
        yield optimizer.param_groups[0]["lr"] / 2e-4
        optimizer.step()
        scheduler.step(*metrics)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"lr_policy": "linear"}, [1, 1, 1, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        ({"lr_policy": "linear", "decay_share": 0.2}, [1, 1, 1, 1, 1, 1, 1, 1, 2 / 3, 1 / 3]),
        ({"lr_policy": "step"}, [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001]),
        ({"lr_policy": "cosine"}, [(1 + math.cos(math.pi * step / 10)) / 2 for step in range(10)]),
    ],
)
def test_policies_start_whole_fall_and_never_reach_zero(options, expected):
    assert list(rates([()] * 10, **options)) == pytest.approx(expected)
    assert expected[-1] > 0


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        # the first, five more in patience, and the sixth lowers the rate
        ([1.0] * 8, [1] * 7 + [0.2]),
        # less than 1 % is no gain
        ([1 - 0.001 * check for check in range(8)], [1] * 7 + [0.2]),
        # 1.5 % every fifth time is enough
        ([0.985 ** (check // 5) for check in range(30)], [1] * 30),
        # never below a thousandth
        ([1.0] * 60, [1] * 7 + [0.2] * 6 + [0.04] * 6 + [0.008] * 6 + [0.0016] * 6 + [0.001] * 29),
    ],
)
def test_plateau_waits_five_checks_and_never_reaches_zero(metrics, expected):
    assert list(rates(zip(metrics), lr_policy="plateau")) == pytest.approx(expected)


@pytest.fixture
def metrics(monkeypatch):
    """What both schedulers are shown."""
    seen = []
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
    monkeypatch.setattr(plateau, "step", lambda self, metric: seen.append(metric))
    return seen


# 50 looks in 150 steps: after steps 3 and 6.
PLATEAU = {"steps": 150, "stop_at": 7, "lr_policy": "plateau"}


def test_plateau_looks_at_the_metric_of_the_model(metrics):
    models = []
    model, _ = train_small(validate=lambda model: models.append(model) or len(models), **PLATEAU)
    assert metrics == [1, 1, 2, 2]
    assert models == [model, model]


def test_plateau_takes_the_mean_cycle_loss_since_its_last_check(metrics):
    cycles = [losses["cycle"] for losses in train_small(**PLATEAU)[1]]
    first, second = sum(cycles[:3]) / 3, sum(cycles[3:6]) / 3
    assert metrics == pytest.approx([first, first, second, second])


def test_plateau_lowers_the_rate_of_both_optimizers(tmp_path):
    path = tmp_path / "run.pt"
    train_small(steps=20, lr_policy="plateau", validate=lambda model: 1.0, checkpoint=path)
    for optimizer in load_checkpoint(path)["optimizers"]:
        # 20 checks, at 7, 13 and 19
        assert optimizer["param_groups"][0]["lr"] == pytest.approx(2e-4 / 5**3)


def test_clipping_bounds_the_gradients_of_both_groups():
    model, ct, mri = small_model()
    Trainer(model, Training(steps=3, clip_norm=1e-3)).train_one_step(ct[:2], mri[:2])
    for weights in (model.generator_parameters, model.discriminator_parameters):
        norm = torch.stack([weight.grad.norm() for weight in weights]).norm()
        assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_bf16_follows_fp32_at_first():
    one, other = train_small(steps=3)[1], train_small(steps=3, precision="bf16")[1]
    for exact, rounded in zip(one, other, strict=True):
        # 8 bits of mantissa, averaged over many pixels: well within 3 %
        assert list(rounded.values()) == pytest.approx(list(exact.values()), rel=0.03)
    assert one != other


@pytest.mark.parametrize(
    ("capabilities", "warned"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False, "architecture": "x86_64"}, True),
        ({"avx512_bf16": True}, False),
        ({"amx_bf16": True}, False),
        ({"neon": True, "bf16": False}, True),
        ({"neon": True, "bf16": True}, False),
    ],
)
def test_a_cpu_without_bf16_is_told_of(monkeypatch, recwarn, capabilities, warned):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    train_small(steps=2)
    assert not recwarn
    train_small(steps=2, precision="bf16")
    assert any("has no bf16" in str(warning.message) for warning in recwarn) == warned


def test_a_torch_that_cannot_tell_of_bf16_is_believed_to_have_it(monkeypatch, recwarn):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    train_small(steps=1, precision="bf16")
    assert not recwarn


@pytest.mark.parametrize(("gan_mode", "networks"), [("lsgan", 4), ("wgangp", 2)])
def test_a_compiled_model_trains_alike(monkeypatch, gan_mode, networks):
    """Traced and differentiated as the default backend does, which needs a C++ compiler."""
    compiled = []
    module_compile = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda self: compiled.append(self) or module_compile(self, backend="aot_eager"),
    )
    one, other = (
        train_small(steps=2, compile=how, objective={"gan_mode": gan_mode})[1]
        for how in (False, True)
    )
    assert len(compiled) == networks
    for plain, traced in zip(one, other, strict=True):
        # float32, other order of sums
        assert list(traced.values()) == pytest.approx(list(plain.values()), rel=1e-3)


def test_the_error_names_the_loss_and_the_slices(monkeypatch):
    step = CycleGAN.training_step
    monkeypatch.setattr(
        CycleGAN, "training_step", lambda self, ct, mri: step(self, ct, mri * torch.inf)
    )
    names = [f"ct-{i}.png" for i in range(5)], [f"mr-{i}.png" for i in range(7)]
    with pytest.raises(
        FloatingPointError, match=r"step 1: .*cycle \(nan\).*CT ct-\d.png, ct-\d.png and MR mr-\d"
    ):
        train_small(names=names)


def test_one_slice_and_a_batch_larger_than_the_data_set():
    model, ct, mri = small_model()
    assert len(fit_tensors(model, ct[:1], mri[:2], seed=0, steps=2, batch_size=5)) == 2


def test_stop_at_zero_trains_nothing():
    assert train_small(stop_at=0)[1] == []


def test_pairs_train_without_discriminators():
    torch.manual_seed(3)
    ct = torch.nn.functional.interpolate(torch.rand(5, 1, 4, 4) * 2 - 1, (32, 32))
    model = CycleGAN(
        SMALL, Objective(adversarial=0, cycle_ct=0, cycle_mri=0, identity=0, supervised=100)
    )
    before = model.D_ct.model[0].weight.clone()
    options = {"sampling": "paired", "paired": True, "learning_rate": 2e-3, "batch_size": 2}
    found = fit_tensors(model, ct, -ct, seed=3, steps=30, **options)
    assert found[-1]["supervised"] < 0.7 * found[0]["supervised"]
    assert set(found[0]) == {"supervised"}
    assert torch.equal(model.D_ct.model[0].weight, before)
