"""Training runs and trained weights as files.

Written whole or not at all, read without running anything that is in them.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ..files import existing, replacing

PARTS = {
    "identity": dict,
    "model": dict,
    "optimizers": list,
    "schedulers": list,
    "scaler": dict,
    "processes": list,
    "step": int,
    "losses": list,
}
TRAIN_FIRST = "train first, lesson 03 shows how"


def save_checkpoint(state: dict, path: Path) -> None:
    """Write a checkpoint whole or not at all.

    Raises OSError, in one sentence, if the system does not let it be written.
    """
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        # torch's writer puts a RuntimeError above that of a full disk
        kept = "the checkpoint of an earlier step is kept" if path.exists() else "nothing was saved"
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise OSError(
            f"{path} cannot be written ({str(reason).splitlines()[0]}): make room or choose "
            f"another folder; {kept}"
        ) from error


def load_checkpoint(path: Path) -> dict:
    """Read a checkpoint written by `fit`.

    FileNotFoundError or ValueError, in one sentence, if it is missing, damaged or not `fit`'s.
    """
    existing(path, TRAIN_FIRST)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        # the system's word, not about the content
        raise type(error)(
            f"{path} cannot be opened ({error.strerror}): check its permissions and the disk"
        ) from error
    except Exception as error:
        raise ValueError(
            f"{path} is not a readable checkpoint ({type(error).__name__}): delete it and train "
            "again"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(state.get(part), kind) for part, kind in PARTS.items()
    ):
        raise ValueError(
            f"{path} was not written by `fit`: for a reference .pth file use "
            "`interchange.load_reference`"
        )
    return state
