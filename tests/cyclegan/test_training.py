"""fit: resumes the very same run, draws unpaired, keeps what it has when something breaks."""

import math
import os
import random
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from fit_tensors import fit

from ctmri_utils.cyclegan.batches import Slices, UnpairedBatches
from ctmri_utils.cyclegan.fast_cpu import use_fast_layers
from ctmri_utils.cyclegan.model import CycleGAN, Translator
from ctmri_utils.cyclegan.resume import load_checkpoint, restore_run, run_state
from ctmri_utils.cyclegan.training import Trainer, schedule
from ctmri_utils.cyclegan.training import fit as fit_slices
from ctmri_utils.machine import delayed_interrupt
from ctmri_utils.runs.weights import load_translator
from ctmri_utils.seeds import random_states, restore_random_states
from ctmri_utils.settings import Architecture, Objective, Settings, Training

SMALL = Architecture(ngf=4, ndf=4, n_blocks=1, n_layers=1)


def start(seed=3, architecture=SMALL, **objective):
    torch.manual_seed(seed)
    ct, mri = torch.rand(5, 1, 32, 32) * 2 - 1, torch.rand(7, 1, 32, 32) * 2 - 1
    return CycleGAN(architecture, Objective(**{"pool_size": 3} | objective)), ct, mri


def train(seed=3, architecture=SMALL, objective=None, **options):
    model, ct, mri = start(seed, architecture, **objective or {})
    return model, fit(model, ct, mri, **{"steps": 8, "batch_size": 2, "seed": seed} | options)


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_same_seed_same_bits_other_seed_other_bits():
    one, two, other = train()[0], train()[0], train(seed=4)[0]
    assert_same_bits(one.state_dict(), two.state_dict())
    assert not torch.equal(one.G_ct2mri.model[1].weight, other.G_ct2mri.model[1].weight)


def test_resume_continues_the_very_same_run(tmp_path):
    straight, losses = train(checkpoint=tmp_path / "straight.pt")
    train(checkpoint=tmp_path / "broken.pt", stop_at=5)
    torch.manual_seed(99)  # whatever happened in between
    resumed, resumed_losses = train(checkpoint=tmp_path / "broken.pt")
    assert_same_bits(straight.state_dict(), resumed.state_dict())
    assert torch.equal(straight.pool_ct.images, resumed.pool_ct.images)
    assert losses == resumed_losses
    assert len(losses) == 8


def test_a_finished_run_is_not_trained_again(tmp_path):
    train(checkpoint=tmp_path / "run.pt")
    steps = []
    _, losses = train(checkpoint=tmp_path / "run.pt", on_step=lambda step, _: steps.append(step))
    assert steps == []
    assert len(losses) == 8


def test_an_interrupt_keeps_the_last_step(tmp_path):
    def interrupt(step, losses):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(checkpoint=tmp_path / "run.pt", on_step=interrupt)
    assert load_checkpoint(tmp_path / "run.pt")["step"] == 4
    assert_same_bits(train(checkpoint=tmp_path / "run.pt")[0].state_dict(), train()[0].state_dict())


def test_an_interrupt_within_a_step_resumes_the_very_same_run(tmp_path, monkeypatch):
    step = CycleGAN.training_step
    calls = []

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


@pytest.mark.parametrize("at", [2, 5, 8])
def test_ctrl_c_within_a_step_loses_nothing(tmp_path, monkeypatch, at):
    step = CycleGAN.training_step
    calls = []

    def interrupted(self, ct, mri):
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGINT)
        return step(self, ct, mri)

    monkeypatch.setattr(CycleGAN, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(checkpoint=tmp_path / "run.pt")
    assert load_checkpoint(tmp_path / "run.pt")["step"] == at
    assert_same_bits(train(checkpoint=tmp_path / "run.pt")[0].state_dict(), train()[0].state_dict())


def test_ctrl_c_waits_a_second_one_does_not_and_the_old_handler_returns():
    before = signal.getsignal(signal.SIGINT)
    done = []
    with pytest.raises(KeyboardInterrupt), delayed_interrupt():
        signal.raise_signal(signal.SIGINT)
        done.append("whole")
    with pytest.raises(KeyboardInterrupt), delayed_interrupt():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("never")
    assert done == ["whole"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_training_runs_in_any_thread():
    models = []
    thread = threading.Thread(target=lambda: models.append(train()[0]))
    thread.start()
    thread.join()
    assert_same_bits(models[0].state_dict(), train()[0].state_dict())


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    """Gradients may break where the losses are still finite."""

    def spoil(step, losses):
        if step == 4:
            with torch.no_grad():
                next(models[0].G_mri2ct.parameters())[0] = torch.inf

    model, ct, mri = start()
    models = [model]
    with pytest.raises(
        FloatingPointError,
        match="the weights after step 4 are not finite: lower the learning rate; .*run.pt stays",
    ):
        fit(
            model,
            ct,
            mri,
            seed=3,
            steps=8,
            batch_size=2,
            checkpoint=tmp_path / "run.pt",
            save_every=2,
            on_step=spoil,
        )
    assert load_checkpoint(tmp_path / "run.pt")["step"] == 2


def test_another_seed_or_architecture_is_not_resumed(tmp_path):
    train(checkpoint=tmp_path / "run.pt")
    with pytest.raises(
        ValueError,
        match="run.pt cannot be resumed: it belongs to another run, with seed 3 instead of "
        "4.*choose another folder",
    ):
        train(seed=4, checkpoint=tmp_path / "run.pt")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_stops_the_training_and_keeps_the_last_good_step(
    tmp_path, monkeypatch, value
):
    step = CycleGAN.training_step
    calls = []

    def broken(self, ct, mri):
        calls.append(1)
        found = step(self, ct, mri)
        if len(calls) == 3:
            found = found._replace(losses=found.losses | {"cycle": torch.tensor(value)})
        return found

    monkeypatch.setattr(CycleGAN, "training_step", broken)
    with pytest.raises(
        FloatingPointError, match=f"stopped at step 3: cycle .{value}. is not finite"
    ):
        train(checkpoint=tmp_path / "run.pt", save_every=2)
    assert load_checkpoint(tmp_path / "run.pt")["step"] == 2
    assert_same_bits(train(checkpoint=tmp_path / "run.pt")[0].state_dict(), train()[0].state_dict())


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"steps": 9}, "steps 8 instead of 9"),
        ({"batch_size": 1}, "batch_size 2 instead of 1"),
        ({"learning_rate": 1e-3}, "learning_rate"),
        ({"objective": {"cycle_ct": 3}}, "cycle_ct 10.0 instead of 3.0"),
        ({"precision": "bf16"}, "precision fp32 instead of bf16"),
    ],
)
def test_a_run_with_other_settings_is_not_resumed(tmp_path, change, what):
    train(checkpoint=tmp_path / "run.pt", stop_at=2)
    with pytest.raises(
        ValueError, match=f"run.pt cannot be resumed: it belongs to another run, with {what}"
    ):
        train(checkpoint=tmp_path / "run.pt", **change)


def test_a_run_on_other_data_is_not_resumed(tmp_path):
    train(checkpoint=tmp_path / "run.pt", stop_at=2)
    torch.manual_seed(1)
    images = torch.rand(5, 1, 32, 32)
    with pytest.raises(ValueError, match="belongs to another run, with data"):
        fit(
            start()[0],
            images,
            images,
            steps=8,
            batch_size=2,
            seed=3,
            checkpoint=tmp_path / "run.pt",
        )


@pytest.mark.parametrize(
    "options",
    [
        {"lr_policy": "step"},
        {"lr_policy": "cosine"},
        {"lr_policy": "plateau"},
        {"ema": 0},
        {"clip_norm": 0.1},
        {"precision": "bf16"},
        {"rotation_deg": 10, "jitter": 0.2, "load_size": 36, "crop_size": 32},
        {"architecture": Architecture(4, 4, 1, 1, dropout=True)},
        {"objective": {"gan_mode": "wgangp"}},
        {"architecture": Architecture(4, 4, 1, 1, norm="batch", spectral=True)},
    ],
)
def test_resume_is_exact_with_every_option(tmp_path, options):
    straight = train(steps=5, **options)[0]
    train(checkpoint=tmp_path / "run.pt", steps=5, stop_at=2, **options)
    assert_same_bits(
        straight.state_dict(),
        train(checkpoint=tmp_path / "run.pt", steps=5, **options)[0].state_dict(),
    )


KILLED = """
import sys, time, torch
sys.path.insert(0, sys.argv[2])
torch.set_num_threads(int(sys.argv[3]))
from test_training import train
def wait_for_the_end(step, losses):
    if step == 20:
        print("step 20", flush=True)
        time.sleep(600)
train(steps=40, checkpoint=sys.argv[1], save_every=10, on_step=wait_for_the_end)
"""


def test_forty_steps_are_twenty_and_kill_and_the_rest(tmp_path):
    """kill -9 in a process of its own, before the save of step 20.

    The run goes on from step 10, to the same bits.
    """
    command = [
        sys.executable,
        "-c",
        KILLED,
        str(tmp_path / "run.pt"),
        os.path.dirname(__file__),
        str(torch.get_num_threads()),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline().strip() == b"step 20"
        process.kill()
    assert load_checkpoint(tmp_path / "run.pt")["step"] == 10
    resumed = train(steps=40, checkpoint=tmp_path / "run.pt", save_every=10)[0]
    assert_same_bits(train(steps=40)[0].state_dict(), resumed.state_dict())


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
    fitted, ct, mri = start()
    fit(fitted, ct, mri, seed=9, **options)
    model, ct, mri = start()
    use_fast_layers(model)
    batches = UnpairedBatches(ct, mri, Training(**options), seed=9)
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
        for average, network in (
            (model.averaged["mri"], model.G_ct2mri),
            (model.averaged["ct"], model.G_mri2ct),
        ):
            for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(weight.detach(), 1 - min(0.3, (2 + step) / (11 + step)))
    assert_same_bits(fitted.state_dict(), model.state_dict())


def rates(metrics=None, **options):
    """The learning rates of ten steps, or as many as there are metrics, as shares of the first."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], 2e-4)
    scheduler = schedule(optimizer, Training(steps=10, **options))
    seen = []
    for metric in metrics or [None] * 10:
        seen.append(optimizer.param_groups[0]["lr"] / 2e-4)
        optimizer.step()
        scheduler.step(*[metric] * bool(metrics))
    return seen


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
    assert rates(**options) == pytest.approx(expected)
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
    assert rates(metrics, lr_policy="plateau") == pytest.approx(expected)


@pytest.mark.parametrize("validated", [True, False])
def test_plateau_looks_at_the_metric_or_at_the_mean_cycle_loss_since_it_last_looked(
    monkeypatch, validated
):
    model, ct, mri = start()
    seen, asked = [], []
    monkeypatch.setattr(
        torch.optim.lr_scheduler.ReduceLROnPlateau, "step", lambda self, metric: seen.append(metric)
    )
    losses = fit(
        model,
        ct,
        mri,
        seed=0,
        steps=150,
        stop_at=7,
        lr_policy="plateau",
        validate=(lambda model: asked.append(model) or len(asked)) if validated else None,
    )
    # 50 looks in 150 steps: after steps 3 and 6, by both schedulers
    cycles = [step["cycle"] for step in losses]
    assert seen == pytest.approx(
        [1, 1, 2, 2] if validated else [sum(cycles[:3]) / 3] * 2 + [sum(cycles[3:6]) / 3] * 2
    )
    assert asked == [model, model] * validated


def test_plateau_lowers_the_rate_of_both_optimizers(tmp_path):
    train(steps=20, lr_policy="plateau", validate=lambda model: 1.0, checkpoint=tmp_path / "run.pt")
    for optimizer in load_checkpoint(tmp_path / "run.pt")["optimizers"]:
        # 20 checks, at 7, 13 and 19
        assert optimizer["param_groups"][0]["lr"] == pytest.approx(2e-4 / 5**3)


def test_every_random_source_comes_back():
    def draw():
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    states = random_states()
    first = draw()
    restore_random_states(states)
    assert draw() == first != draw()


def test_the_scale_of_fp16_gradients_comes_back():
    """GradScaler also works on the CPU, where training does not need it."""
    one, other = (Trainer(start()[0], Training(steps=3)) for _ in range(2))
    one.scaler = torch.amp.GradScaler("cpu", init_scale=64)
    other.scaler = torch.amp.GradScaler("cpu")
    one.scaler.scale(torch.zeros(()))  # it is made when first used
    restore_run(other, run_state(one))
    assert other.scaler.get_scale() == 64


def test_clipping_bounds_the_gradients_of_both_groups():
    model, ct, mri = start()
    Trainer(model, Training(steps=3, clip_norm=1e-3)).train_one_step(ct[:2], mri[:2])
    for group in (model.generator_parameters, model.discriminator_parameters):
        assert torch.stack([weight.grad.norm() for weight in group]).norm().item() == pytest.approx(
            1e-3, rel=1e-3
        )


def test_bf16_follows_fp32_at_first():
    one, other = train(steps=3)[1], train(steps=3, precision="bf16")[1]
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
    train(steps=2)
    assert not recwarn
    train(steps=2, precision="bf16")
    assert [str(warning.message) for warning in recwarn] == [
        'this CPU has no bf16, and to imitate it takes longer than fp32: choose precision="fp32"'
    ] * warned


def test_a_torch_that_cannot_tell_of_bf16_is_believed_to_have_it(monkeypatch, recwarn):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    train(steps=1, precision="bf16")
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
        train(steps=2, compile=how, objective={"gan_mode": gan_mode})[1] for how in (False, True)
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
    names = [
        [f"{modality}-{i}.png" for i in range(count)] for modality, count in (("ct", 5), ("mr", 7))
    ]
    with pytest.raises(
        FloatingPointError,
        match=r"step 1: .*cycle \(nan\).* is not finite, on CT ct-\d.png, ct-\d.png and MR mr-\d",
    ):
        train(names=names)


def test_slices_that_are_not_finite_are_refused_before_the_training():
    model, ct, mri = start()
    mri[4, 0, 3, 3] = torch.nan
    with pytest.raises(
        ValueError, match="MR slice number 4 holds values that are not finite: remove or repair it"
    ):
        fit(model, ct, mri, seed=0, steps=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stepz": 3}, "stepz is not an option: did you mean steps"),
        ({"lr_policy": "square"}, "choose one of linear, step, cosine, plateau"),
        ({"precision": "fp16"}, 'precision="fp16" needs a GPU: choose "bf16" or "fp32" on the CPU'),
        ({"crop_size": 64}, "crop_size=64 is larger than the slices of 32x32 pixels"),
        ({"steps": 0}, "steps=0 trains nothing"),
        (
            {"architecture": Architecture(4, 4, 1, 1, ct_channels=2, mri_channels=2)},
            r"ct is of shape \(5, 1, 32, 32\) and should be \(N, 2, H, W",
        ),
    ],
)
def test_impossible_options_get_one_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        train(**options)


def test_no_slices_get_one_sentence():
    model, ct, mri = start()
    with pytest.raises(
        ValueError,
        match=r"mri is of shape \(0, 1, 32, 32\) and should be \(N, 1, H, W\), N at least 1",
    ):
        fit(model, ct, mri[:0], seed=0, steps=1)


def test_one_slice_and_a_batch_larger_than_the_data_set():
    model, ct, mri = start()
    assert len(fit(model, ct[:1], mri[:2], seed=0, steps=2, batch_size=5)) == 2


def test_a_folder_that_cannot_be_written_is_found_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("in the way")
    steps = []
    with pytest.raises(
        OSError, match="file.* cannot be written to .*: choose another folder for the run"
    ):
        train(checkpoint=tmp_path / "file" / "run.pt", on_step=lambda step, _: steps.append(step))
    assert steps == []


@pytest.mark.parametrize(
    ("objective", "options", "sentence"),
    [
        ({}, {"sampling": "paired"}, 'sampling="paired" needs CT and MR of the same slices'),
        # 5 CTs and 7 MRs
        (
            {},
            {"sampling": "paired", "paired": True},
            'sampling="paired" needs CT and MR of the same slices',
        ),
        ({}, {"sampling": "position"}, 'sampling="position" needs the height of every slice'),
        (
            {},
            {"sampling": "position", "positions": ([0.5] * 5, [0.5] * 6)},
            'sampling="position" needs the height of every slice',
        ),
        ({"supervised": 1}, {}, 'supervised=1 needs pairs, and sampling="random" gives none'),
        (
            {"cycle_ct": 0, "cycle_mri": 0},
            {"lr_policy": "plateau"},
            'lr_policy="plateau" watches the cycle loss',
        ),
    ],
)
def test_a_remedy_that_the_data_cannot_serve_gets_one_sentence(objective, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        train(objective=objective, **options)


@pytest.mark.parametrize(
    "objective",
    [
        {"nce": 1.0},
        {"nce": 5.0, "cycle_ct": 0.0, "cycle_mri": 0.0, "identity": 0.0},
        {"translation_noise": 0.1},
        {"gradient": 1.0, "mind": 1.0, "correlation": 1.0},
    ],
)
def test_remedies_resume_the_very_same_run(tmp_path, objective):
    """Noise and places are drawn anew in every step, and the contrast has weights and an optimizer
    state of its own.
    """
    straight, _ = train(objective=objective, checkpoint=tmp_path / "straight.pt")
    train(objective=objective, checkpoint=tmp_path / "broken.pt", stop_at=5)
    torch.manual_seed(99)
    resumed, _ = train(objective=objective, checkpoint=tmp_path / "broken.pt")
    assert_same_bits(straight.state_dict(), resumed.state_dict())


def test_pairs_train_without_discriminators():
    torch.manual_seed(3)
    ct = torch.nn.functional.interpolate(torch.rand(5, 1, 4, 4) * 2 - 1, (32, 32))
    model = CycleGAN(
        SMALL, Objective(adversarial=0, cycle_ct=0, cycle_mri=0, identity=0, supervised=100)
    )
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    found = fit(
        model,
        ct,
        -ct,
        seed=3,
        steps=30,
        sampling="paired",
        paired=True,
        learning_rate=2e-3,
        batch_size=2,
    )
    assert found[-1]["supervised"] < 0.7 * found[0]["supervised"]
    assert set(found[0]) == {"supervised"}
    assert torch.equal(model.D_ct.model[0].weight, before["D_ct.model.0.weight"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": -1}, "seed=-1 should be a whole number"),
        ({"seed": None}, "seed=None should be a whole number"),
        ({"seed": "a"}, "seed='a' should be a whole number"),
        ({"stop_at": -1}, "stop_at=-1 should be a whole number"),
        ({"save_every": 0}, "save_every=0 should be a whole number of at least 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(change, sentence):
    model, ct, mri = start()
    with pytest.raises(ValueError, match=sentence):
        fit_slices(model, Slices(ct, mri), Training(steps=2), **{"seed": 1} | change)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda ct, mri: (ct, mri), "a tuple holds no slices"),
        (lambda ct, mri: Slices(ct.numpy(), mri.numpy()), "a Slices holds no slices"),
        (lambda ct, mri: Slices(ct, mri, ct_names=("one",)), "ct_names has 1 names for 5 slices"),
        (lambda ct, mri: Slices(ct * 1000, mri), r"CT slice number 0 .* should be in \[-1, 1\]"),
    ],
)
def test_what_is_no_slices_to_train_on_is_refused(wrong, sentence):
    model, ct, mri = start()
    with pytest.raises(ValueError, match=sentence):
        fit_slices(model, wrong(ct, mri), Training(steps=2), seed=1)


def test_a_translator_and_an_objective_of_nothing_are_refused():
    model, ct, mri = start()
    with pytest.raises(ValueError, match="a Translator cannot be trained"):
        fit_slices(Translator(SMALL), Slices(ct, mri), Training(steps=2), seed=1)
    nothing = start(cycle_ct=0, cycle_mri=0, identity=0, adversarial=0)[0]
    with pytest.raises(ValueError, match="all weights of the losses are 0"):
        fit_slices(nothing, Slices(ct, mri), Training(steps=2), seed=1)


def test_whole_settings_train_without_touching_the_models(tmp_path):
    model, ct, mri = start()
    settings = Settings(steps=2, ngf=99, cycle_ct=77)
    fit_slices(model, Slices(ct, mri), settings, seed=1, checkpoint=tmp_path / "run.pt")
    identity = load_checkpoint(tmp_path / "run.pt")["identity"]
    assert (identity["ngf"], identity["cycle_ct"], identity["steps"]) == (4, 10, 2)
    assert load_translator(tmp_path / "run.pt")


def test_stop_at_zero_trains_nothing():
    model, ct, mri = start()
    assert fit_slices(model, Slices(ct, mri), Training(steps=2), seed=1, stop_at=0) == []
