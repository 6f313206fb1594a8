"""What a training step costs beside the reference's, the data beside decoding files, and how both
grow: `python benchmarks/training.py`.

The reference step is `ReferenceStep` of tests/helpers/reference_cyclegan.py on the same networks in
float32: six passes through the generators and six through the discriminators, one call each. Both
are timed in turns in one run, on as many threads as CTMRI_THREADS says (default: half the cores),
and the median ratio is printed. Memory is the peak of a process of its own, less what it holds
before the first step. FLOPs are counted by torch.utils.flop_counter on one reference step (a
multiplication and an addition are two). `--quality 2026` trains on the phantom too, from that seed.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path[:0] = [
    str(Path(__file__).parents[1]),
    str(Path(__file__).parents[1] / "tests"),
]

from helpers.reference_cyclegan import ReferenceStep  # noqa: E402

from ctmri_utils import evaluation  # noqa: E402
from ctmri_utils.cyclegan.batches import Slices, UnpairedBatches  # noqa: E402
from ctmri_utils.cyclegan.model import CycleGAN  # noqa: E402
from ctmri_utils.cyclegan.training import Trainer, fit  # noqa: E402
from ctmri_utils.machine import report  # noqa: E402
from ctmri_utils.runs.studies import status_mb  # noqa: E402
from ctmri_utils.scans.datasets import load_scans  # noqa: E402
from ctmri_utils.seeds import set_up  # noqa: E402
from ctmri_utils.settings import (  # noqa: E402
    Architecture,
    Training,
    read_settings,  # noqa: E402
)

WIDE, NARROW = Architecture(), Architecture(ngf=16, ndf=16)


def step(kind: str, architecture: Architecture, size: int, batch: int):
    """A function that makes one training step of a kind ("reference", "fp32", "bf16"), and the
    images it makes it on.
    """
    device = set_up(0)
    ct, mri = (torch.rand(batch, 1, size, size, device=device) * 2 - 1 for _ in range(2))
    model = CycleGAN(architecture).to(device)
    if kind == "reference":
        reference = ReferenceStep(model.G_ct2mri, model.G_mri2ct, model.D_mri, model.D_ct)
        return lambda: reference(ct, mri)
    trainer = Trainer(model, Training(steps=10**6, batch_size=batch, precision=kind))
    return lambda: trainer.train_one_step(ct, mri)


def seconds(call) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turns(calls: dict, rounds: int) -> dict[str, float]:
    """The median seconds of each call; every round makes each call once; one round warms up."""
    times = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def peak_mb(kind: str, architecture: Architecture, size: int, batch: int, answers) -> None:
    """Put into `answers` by how many MB two steps raise the peak memory of this process (on a GPU.

    Of its allocator).
    """
    call = step(kind, architecture, size, batch)
    if torch.cuda.is_available():
        call(), call()
        return answers.put(torch.cuda.max_memory_allocated() / 2**20)
    before = status_mb("VmRSS")
    call(), call()
    answers.put(status_mb("VmHWM") - before)


def memory_mb(*what) -> float:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=peak_mb, args=(*what, answers))
    process.start()
    found = answers.get()
    process.join()
    return found


def tera_flops(architecture: Architecture, size: int, batch: int) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    call = step("reference", architecture, size, batch)
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e12


def steps_table(rounds: int) -> None:
    print(
        f"\n{'step':34} {'reference':>10} {'ours fp32':>10} {'ours bf16':>10}  bf16/reference: "
        "time  memory"
    )
    for name, architecture, size, batch, turns in (
        ("256x256, ngf 64, 9 blocks, batch 1", WIDE, 256, 1, rounds),
        ("64x64, ngf 16, 9 blocks, batch 4", NARROW, 64, 4, 5 * rounds),
    ):
        kinds = ("reference", "fp32", "bf16")
        times = in_turns({kind: step(kind, architecture, size, batch) for kind in kinds}, turns)
        memory = {kind: memory_mb(kind, architecture, size, batch) for kind in kinds}
        shown = " ".join(f"{times[kind]:8.3f} s" for kind in kinds)
        print(
            f"{name:34} {shown} {times['bf16'] / times['reference']:20.2f} "
            f"{memory['bf16'] / memory['reference']:7.2f}"
        )
        print(
            f"{'  peak memory above the start':34} "
            + " ".join(f"{memory[kind]:7.0f} MB" for kind in kinds)
        )
        flops = tera_flops(architecture, size, batch)
        print(
            f"{'  arithmetic':34} {flops:.3f} TFLOP a step, {flops / times['bf16']:.2f} TFLOP/s in "
            "bf16"
        )


def growth_table(rounds: int) -> None:
    print("\ncost of a step in bf16, ngf 16, 9 blocks: ms an image (MB above the start)")
    sizes, batches = (64, 96, 128, 256), (1, 4, 8)
    print(f"{'batch':>8} " + " ".join(f"{size:>5}x{size:<10}" for size in sizes))
    for batch in batches:
        cells = []
        for size in sizes:
            took = in_turns({"bf16": step("bf16", NARROW, size, batch)}, rounds)["bf16"]
            cells.append(
                f"{1000 * took / batch:6.0f} ({memory_mb('bf16', NARROW, size, batch):5.0f})"
            )
        print(f"{batch:>8} " + " ".join(f"{cell:16}" for cell in cells))


def data_table(rounds: int) -> None:
    """256 slices of 256x256.

    Batches of 4 from memory, moved about, beside opening, decoding, resizing and scaling each PNG.
    """
    slices = np.random.default_rng(0).integers(0, 255, (256, 256, 256), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, pixels in enumerate(slices):
            files.append(Path(folder) / f"{number}.png")
            Image.fromarray(
                np.asarray(Image.fromarray(pixels).resize((64, 64)).resize((256, 256)))
            ).save(files[-1])
        images = torch.from_numpy(slices).float()[:, None] / 127.5 - 1
        batches = UnpairedBatches(Slices(images, images), Training(batch_size=4), 0)

        def decode():
            for file in files:
                with Image.open(io.BytesIO(file.read_bytes())) as image:
                    resized = (
                        image.convert("L")
                        .resize((286, 286), Image.Resampling.BICUBIC)
                        .crop((15, 15, 271, 271))
                    )
                    torch.from_numpy(np.array(resized)).float()[None] / 127.5 - 1

        def draw():
            # 32 x (4 CT + 4 MR) = 256 slices
            for number in range(32):
                batches(number)

        times = in_turns({"decode": decode, "draw": draw}, rounds)
    print(
        f"\ndata, 256x256: {256 / times['decode']:.0f} slices/s decoded one by one, "
        f"{256 / times['draw']:.0f} slices/s from memory: {times['decode'] / times['draw']:.0f} "
        "times as many"
    )


def quality(seed: int) -> None:
    """About ten minutes on the phantom at 64x64, in bf16: masked MAE over its test patients."""
    _, settings = read_settings(None, {"precision": "bf16"})
    device = set_up(seed)
    scans = load_scans("phantom", settings, seed)
    torch.manual_seed(seed)
    model = CycleGAN(settings.architecture, settings.objective).to(device)
    start = time.perf_counter()

    def look(step, losses):
        if step % 1000 == 0 or step == QUALITY_STEPS:
            took = time.perf_counter() - start
            scores = evaluation.evaluate(
                {"": evaluation.as_predictor(model, scans.ct_scale)}, scans.test, scans.spacing_mm
            )
            mae = scores.loc[scores["metric"] == "MAE HU", "value"].mean()
            print(f"  {step:6} steps, {took / 60:5.1f} min: masked MAE {mae:.1f} HU", flush=True)

    print(f"\nquality on the phantom at 64x64, seed {seed}", flush=True)
    fit(model, scans.train, settings.training, steps=QUALITY_STEPS, seed=seed, on_step=look)


QUALITY_STEPS = 9500


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each thing is timed")
    parser.add_argument(
        "--quality",
        nargs="+",
        type=int,
        default=[],
        metavar="SEED",
        help="also train on the phantom, ten minutes each",
    )
    options = parser.parse_args()
    set_up(0)
    print(report())
    steps_table(options.rounds)
    data_table(options.rounds)
    growth_table(options.rounds)
    for seed in options.quality:
        quality(seed)
