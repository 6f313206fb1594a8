"""Kill a real training at random moments, and fill its disk: it must always go on to the same bits.

    python benchmarks/kill_training.py                # 100 kills, about ten minutes on one core
    python benchmarks/kill_training.py --kills 10

A straight training notes a digest of its weights at every save. Then `ctmri train` runs the same
training in another folder and is killed (SIGKILL) again and again: half of the times at a random
moment, half of the times inside a save. After each kill the checkpoint must load and have the
digest of its step. At last the training is left alone and must end with the straight one's weights.
The same is done on a disk that is too small for a second checkpoint (Linux, root).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from ctmri_utils.cyclegan.resume import load_checkpoint
from ctmri_utils.runs import train as train_module
from ctmri_utils.runs.train import RunLog, train

SAVE_EVERY = 100
STEPS = 3000
SETTINGS = {
    "profile": "ci",
    "dataset": "phantom",
    "seed": 3,
    "size": 32,
    "patients": 8,
    "test_patients": 4,
    "ngf": 4,
    "ndf": 4,
    "n_blocks": 1,
    "n_layers": 1,
    "steps": STEPS,
}


# For every kill, whether the process died while it wrote its checkpoint.
KILLED_IN_A_SAVE: list[bool] = []


def digest(state: dict) -> str:
    """A hash of all weights."""
    found = hashlib.sha256()
    for value in state.values():
        found.update(value.detach().numpy().tobytes())
    return found.hexdigest()


def straight_digests(folder: Path) -> dict[int, str]:
    """The digest after each step that is saved, of a training that nothing disturbs."""
    digests = {}
    plain_call = RunLog.__call__

    def noting_call(self, step, losses):
        plain_call(self, step, losses)
        if step % SAVE_EVERY == 0:
            digests[step] = digest(self.model.state_dict())

    train_module.RunLog.__call__ = noting_call
    try:
        train(output=folder, changes=SETTINGS)
    finally:
        train_module.RunLog.__call__ = plain_call
    return digests


def start_training(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "ctmri_utils", "train", "--output", str(folder)]
    for name, value in SETTINGS.items():
        command += ["-p", name, str(value)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def kill(folder: Path, in_a_save: bool, chance: random.Random) -> bool:
    """Start the training and kill it; False if it ended before."""
    process = start_training(folder)

    def stopped() -> bool:
        return process.poll() is not None

    wait_for(lambda: (folder / ".checkpoint.pt.owner").exists() or stopped())

    # Some saves later, so that the run also gets on.
    for _ in range(chance.randrange(4)):
        before = saved_at(folder)
        wait_for(lambda before=before: saved_at(folder) != before or stopped())
    if in_a_save:
        pattern = f".partial-*-{process.pid}-*"
        wait_for(lambda: any(folder.glob(pattern)) or stopped())
        time.sleep(chance.uniform(0, 0.003))
    else:
        time.sleep(chance.uniform(0, 3))
    if stopped():
        return False
    process.send_signal(signal.SIGKILL)
    process.communicate()
    KILLED_IN_A_SAVE.append(any(folder.glob(f".partial-*-{process.pid}-*")))
    return True


def saved_at(folder: Path) -> float | None:
    checkpoint = folder / "checkpoint.pt"
    return checkpoint.stat().st_mtime if checkpoint.exists() else None


def wait_for(condition, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the training did not come as far")
        time.sleep(0.0002)


def check(folder: Path, digests: dict[int, str]) -> int:
    """The step of the checkpoint, whose weights must be those of the straight training."""
    checkpoint = folder / "checkpoint.pt"
    if not checkpoint.exists():
        return 0
    state = load_checkpoint(checkpoint)
    assert digest(state["model"]) == digests[state["step"]], f"other weights at {state['step']}"
    return state["step"]


def kills(folder: Path, digests: dict[int, str], count: int) -> None:
    chance = random.Random(0)
    done = 0
    while done < count:
        # A training that is nearly at its end starts anew.
        if check(folder, digests) > STEPS - 3 * SAVE_EVERY:
            shutil.rmtree(folder)
        in_a_save = done % 2 == 1
        if kill(folder, in_a_save, chance):
            done += 1
            step = check(folder, digests)
            print(f"kill {done}: the checkpoint of step {step} is whole", flush=True)

    process = start_training(folder)
    process.communicate()
    assert process.returncode == 0 and check(folder, digests) == STEPS
    inside = sum(KILLED_IN_A_SAVE)
    print(f"{count} kills, {inside} of them inside a save: the run ended with the same bits")


def full_disks(digests: dict[int, str], size: int, count: int) -> None:
    """Train on disks that hold one checkpoint and a part of the second."""
    chance = random.Random(1)
    place = Path(tempfile.mkdtemp())
    for number in range(1, count + 1):
        room = int(size * chance.uniform(1.15, 1.9)) // 1024 + 200
        mount = ["mount", "-t", "tmpfs", "-o", f"size={room}k", "tmpfs", str(place)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            print("full disks: not tried, since no small disk can be mounted here")
            return
        try:
            process = start_training(place / "run")
            _, message = process.communicate()
            step = check(place / "run", digests)
            last = message.strip().splitlines()[-1]
            assert process.returncode == 1 and "cannot be written" in last, last
            print(f"full disk {number}: the checkpoint of step {step} is whole")
        finally:
            subprocess.run(["umount", str(place)], check=True)
    print(f"{count} full disks: no checkpoint was lost")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--full-disks", type=int, default=5)
    options = parser.parse_args()
    os.environ["CTMRI_THREADS"] = "1"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        straight = Path(temporary) / "straight"
        digests = straight_digests(straight)
        kills(Path(temporary) / "killed", digests, options.kills)
        size = (straight / "checkpoint.pt").stat().st_size
        full_disks(digests, size, options.full_disks)
