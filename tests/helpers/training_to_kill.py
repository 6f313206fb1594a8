"""A training that waits at step 20 until it is killed.

`python -m helpers.training_to_kill CHECKPOINT THREADS`, in the folder tests.
"""

import sys
import time

import torch
from helpers.fit_tensors import train_small


def wait_at_step_20(step, losses):
    if step == 20:
        print("step 20", flush=True)
        time.sleep(600)


if __name__ == "__main__":
    checkpoint, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    train_small(steps=40, checkpoint=checkpoint, save_every=10, on_step=wait_at_step_20)
