"""The machine that a run is on: precision, processes, packages, environment, folders."""

from __future__ import annotations

import os
import platform
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator


def training_device() -> torch.device:
    """The hardware accelerator that torch finds (cuda, mps, xpu), else the CPU.

    mps and xpu follow torch's documentation and are untested.
    """
    # Torch before version 2.6 lacks this module, and finds CUDA alone.
    hardware_accelerator = getattr(torch, "accelerator", None)
    if hardware_accelerator is not None and hardware_accelerator.is_available():
        return torch.device(hardware_accelerator.current_accelerator().type)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def accelerator_precision(device: torch.device) -> str:
    """The precision that an accelerator computes quickly: "bf16", "fp16" or "fp32".

    bf16 from CUDA capability 8 on (A100, RTX 30), fp16 from 7 on (V100, T4); never an emulation.
    """
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        if major >= 8:
            return "bf16"
        return "fp16" if major == 7 else "fp32"
    if device.type == "xpu" and torch.xpu.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "fp32"


def cpu_lacks_bf16() -> bool:
    """Whether this CPU has no instructions for bf16; False where torch is too old to tell."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is None:
        return False

    # The names under which CPUs report bf16; the last two are ARM's.
    names = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
    return not any(capabilities().get(name) for name in names)


def start_accelerator() -> Accelerator | None:
    """Accelerate's `Accelerator` if this process is one of several, else None.

    `accelerate launch`, `notebook_launcher` and `torchrun` start several.

    Raises:
        ModuleNotFoundError: there are several processes, and accelerate is missing.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    return import_optional("accelerate").Accelerator(cpu=not torch.cuda.is_available())


def distribute(model: torch.nn.Module, accelerator: Accelerator) -> torch.nn.Module:
    """The model as several processes train it together; each keeps its own buffers (pools).

    Args:
        model: the same in all processes.
        accelerator: from `start_accelerator`.
    """
    wrapped = accelerator.prepare(model)

    # Torch called it broadcast_buffers before version 2.13.
    has_new_name = hasattr(wrapped, "forward_sync_buffers")
    setattr(wrapped, "forward_sync_buffers" if has_new_name else "broadcast_buffers", False)
    return wrapped


@contextmanager
def delayed_interrupt() -> Iterator[None]:
    """Inside the block Ctrl-C takes effect at its end, so that a step or a file is finished.

    In a notebook that is the stop button. A second Ctrl-C takes effect at once. Python gives
    signals to the main thread alone, so in any other this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    interrupts = []

    def remember(*_):
        interrupts.append(True)
        if len(interrupts) > 1:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupts:
        raise KeyboardInterrupt


def import_optional(name: str, extra: str = "course") -> ModuleType:
    """Import a package that a plain installation lacks, or say which extra brings it.

    Raises:
        ModuleNotFoundError: it is missing.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"this needs {name.partition('.')[0]}: pip install 'ctmri-utils[{extra}]'"
        ) from error


def progress_bar(unit: str, title: str | None = None) -> Callable[[Iterable], Iterable]:
    """A function that shows a bar while a loop runs, in a terminal or a notebook."""
    return partial(import_optional("tqdm.auto").tqdm, unit=unit, disable=None, desc=title)


# Environment variables for processes that multiply matrices on one thread: two round differently.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@contextmanager
def environment_variables(**variables: str) -> Iterator[None]:
    """Inside the block these environment variables are set, here and for every process that starts.

    Then they are as they were. They belong to the whole process: blocks in two threads must not
    overlap.
    """
    before = {name: os.environ[name] for name in variables if name in os.environ}
    try:
        os.environ.update(variables)
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)
        os.environ.update(before)


def report() -> str:
    """One line on Python, torch, device and threads, for the top of a lesson or an issue."""
    device = training_device()
    name = f"CPU, {torch.get_num_threads()} threads" if device.type == "cpu" else gpu_name(device)
    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, {name}, "
        f"{platform.system()} {platform.machine()}"
    )


def hardware() -> str:
    """The number of cores and the GPU, as they stand beside a measured time."""
    device = training_device()
    return f"{os.cpu_count()} cores, {'no GPU' if device.type == 'cpu' else gpu_name(device)}"


def gpu_name(device: torch.device) -> str:
    """The card's name on CUDA, else the kind of device."""
    return torch.cuda.get_device_name() if device.type == "cuda" else device.type


PACKAGE = Path(__file__).resolve().parent

# The checkout that this package runs from; None where it was installed, as on Colab.
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None

# On Kaggle, `input` holds the attached data sets, read-only, and `working` is what it keeps.
KAGGLE = Path("/kaggle")


def data_folder() -> Path:
    """Where the embedded scans lie: `data` in the checkout, or the copy inside the package."""
    return CHECKOUT / "data" if CHECKOUT else PACKAGE / "data"


def on_kaggle() -> bool:
    """Whether this is a notebook on Kaggle."""
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def build_folder() -> Path:
    """Where executed lessons and training runs go; it is created if missing.

    $CTMRI_BUILD, else `build` in the checkout, on Kaggle in the folder that it keeps, or in the
    current folder.
    """
    outside = KAGGLE / "working" if on_kaggle() else Path.cwd()
    default = (CHECKOUT or outside) / "build"
    folder = Path(os.environ.get("CTMRI_BUILD") or default)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
