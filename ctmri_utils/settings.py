"""Every setting, with its default (the reference implementation's), its limits and a line of help.

The profiles are rows of `profiles.toml`, the presets rows of `presets.toml`.
"""

from __future__ import annotations

import ast
import difflib
import json
import math
import re
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

# A path such as "C:\Users\me"; with two backslashes each TOML reads it as it is meant.
WINDOWS_PATH = re.compile(r'^\s*\w+\s*=\s*"\w:\\(?!\\)', flags=re.MULTILINE)

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def option(
    default: Any, help: str, *, choices: tuple = (), low: float = 0, high: float = math.inf
) -> Any:
    """A field that `Options` checks: one of `choices`, or a number from `low` to `high`."""
    limits = {"help": help, "choices": choices, "low": low, "high": high}
    return field(default=default, metadata=limits)


@dataclass(frozen=True)
class Options:
    """A frozen set of options, checked when it is made.

    Raises:
        ValueError: in one sentence, a wrong type, an unknown choice or a number out of range.
    """

    def __post_init__(self):
        for spec in fields(self):
            value = convert(getattr(self, spec.name), type(spec.default))
            object.__setattr__(self, spec.name, value)
            check_option(spec, value)

    @classmethod
    def of(cls, values: Mapping[str, Any]):
        """These options from a mapping.

        Raises:
            ValueError: a name that is not an option; it suggests the nearest one.
        """
        known = [spec.name for spec in fields(cls)]
        for name in values:
            if name in known:
                continue
            if name in REFERENCE_NAMES:
                raise ValueError(f"{name} is no option here: {REFERENCE_NAMES[name]}")
            near = difflib.get_close_matches(name, known, 1)
            advice = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"
            raise ValueError(f"{name} is no option here: {advice}")
        return cls(**values)

    def pick(self, part: type[Options]):
        """Those of these options that belong to `part`, as a `part`."""
        return part(**{spec.name: getattr(self, spec.name) for spec in fields(part)})


def convert(value: Any, kind: type) -> Any:
    """A number as the kind that is needed, if that changes nothing: 5 as 5.0, and 1e3 as 1000."""
    if kind is float and type(value) is int:
        return float(value)
    if kind is int and type(value) is float and value.is_integer():
        return int(value)
    return value


def check_option(spec: Field, value: Any) -> None:
    """Raise ValueError unless the value has its default's type and keeps its limits."""
    kind, limits = type(spec.default), spec.metadata
    if type(value) is not kind:
        raise ValueError(f"{spec.name}={value!r} should be {KINDS[kind]}")

    choices = limits.get("choices")
    if choices and value not in choices:
        raise ValueError(f"{spec.name}={value!r} is not known: choose one of {', '.join(choices)}")

    if kind in (int, float):
        low, high = limits["low"], limits["high"]
        in_range = low <= value <= high and value < math.inf
        if not in_range:
            upper = ""
            if high < math.inf:
                upper = f" and at most {high:g}"
            elif value == math.inf:
                upper = " and finite"
            raise ValueError(f"{spec.name}={value} should be at least {low:g}{upper}")


@dataclass(frozen=True)
class Architecture(Options):
    """The four networks of a CycleGAN.

    Kept in every checkpoint, so that a file says how to rebuild its model.
    """

    ngf: int = option(64, "width of the generators", low=1, high=2**16)
    ndf: int = option(64, "width of the discriminators", low=1, high=2**16)
    n_blocks: int = option(9, "residual blocks of a ResNet generator")
    n_layers: int = option(3, 'layers of the PatchGAN; 3 is the reference\'s "basic"', low=1)
    norm: str = option(
        "instance", "normalisation of all networks", choices=("instance", "batch", "none")
    )
    generator: str = option(
        "resnet",
        "resnet, or a U-Net by the side that it halves to one pixel: unet_256, unet_128 ...",
    )
    discriminator: str = option(
        "n_layers", "a PatchGAN of n_layers, or one verdict a pixel", choices=("n_layers", "pixel")
    )
    dropout: bool = option(False, "dropout in the generators")
    upsampling: str = option(
        "transposed",
        "transposed convolution, or resize and convolve, which draws no checkerboard",
        choices=("transposed", "resize"),
    )
    spectral: bool = option(False, "spectral norm on the discriminators")
    ct_channels: int = option(1, "channels of a CT slice", low=1)
    mri_channels: int = option(1, "channels of an MR slice", low=1)
    ct_map: str = option(
        "linear",
        "how the networks see CT, see units.CT_MAPS",
        choices=("linear", "piecewise", "two_windows"),
    )
    init: str = option(
        "normal",
        "how the first weights are drawn",
        choices=("normal", "xavier", "kaiming", "orthogonal"),
    )
    init_gain: float = option(0.02, "their spread")


GAN_MODES = ("lsgan", "vanilla", "hinge", "wgangp")


@dataclass(frozen=True)
class Objective(Options):
    """What the networks minimise: the weights of the losses, and how they are computed."""

    cycle_ct: float = option(10.0, "weight of |cycled_ct - ct|; the reference's lambda_A")
    cycle_mri: float = option(10.0, "weight of |cycled_mri - mri|; the reference's lambda_B")
    identity: float = option(
        5.0, "weight of |G_mri2ct(ct) - ct| + |G_ct2mri(mri) - mri|; lambda_identity times lambda"
    )
    adversarial: float = option(
        1.0, "weight of the discriminators' verdicts; 0: they are not trained"
    )
    gradient: float = option(0.0, "weight of remedies.gradient_loss, both ways")
    mind: float = option(0.0, "weight of remedies.mind_loss, both ways")
    correlation: float = option(0.0, "weight of remedies.correlation_loss, both ways")
    mask: float = option(0.0, "weight of remedies.mask_loss: the fake CT's head where the MR's is")
    nce: float = option(0.0, "weight of remedies.patch_nce_loss, both ways")
    nce_identity: float = option(
        0.0, "weight of the same for a generator that is given what it should produce, as in CUT"
    )
    supervised: float = option(
        0.0, 'weight of |fake_ct - ct| + |fake_mri - mri|; needs pairs and sampling = "paired"'
    )
    translation_noise: float = option(0.0, "SD of the noise on a translation before its way back")
    gan_mode: str = option("lsgan", "form of the adversarial loss", choices=GAN_MODES)
    gradient_penalty: float = option(10.0, "weight of the gradient penalty of wgangp")
    pool_size: int = option(50, "older translations that a discriminator may meet again")


@dataclass(frozen=True)
class Training(Options):
    """How `fit` trains: length, step size, precision, and augmentation."""

    steps: int = option(0, "training steps; 0: the profile's number for the data set")
    batch_size: int = option(1, "images of each modality in a step (and a process)", low=1)
    sampling: str = option(
        "random",
        "which MR meets a CT: any, one of like height, or its own",
        choices=("random", "position", "paired"),
    )
    learning_rate: float = option(2e-4, "of Adam")
    beta1: float = option(0.5, "of Adam", high=1)
    beta2: float = option(0.999, "of Adam", high=1)
    lr_policy: str = option(
        "linear",
        "how the learning rate falls",
        choices=("linear", "step", "cosine", "plateau"),
    )
    decay_share: float = option(
        0.5, "linear: share of the steps, the last ones, over which the rate falls", high=1
    )
    clip_norm: float = option(0.0, "largest norm of a gradient; 0: no limit")
    ema: float = option(
        0.998, "memory of the running mean of the generators' weights; 0: the last weights", high=1
    )
    precision: str = option(
        "fp32",
        "of the networks; auto: the fastest that this machine really has",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    compile: bool = option(False, "torch.compile the networks")
    load_size: int = option(0, "resize training slices to this many pixels; 0: as they are")
    crop_size: int = option(0, "then cut out squares of this many pixels; 0: whole slices")
    flip: bool = option(True, "mirror half of the slices left to right")
    shift: float = option(1 / 32, "shift by up to this share of the side, whole pixels", high=0.5)
    rotation_deg: float = option(0.0, "rotate by up to this angle", high=180)
    jitter: float = option(
        0.0, "brighten or darken MR by up to this share; CT never, since HU are calibrated", high=1
    )


@dataclass(frozen=True)
class Settings(Architecture, Objective, Training):
    """How large the lessons run, and everything else that can be set; `PROFILES` holds three."""

    size: int = option(256, "pixels per side of the phantom's slices", low=32)
    scans_size: int = option(256, "pixels per side of real slices", low=32)
    patients: int = option(1000, "synthetic patients of each modality, for training", low=1)
    test_patients: int = option(40, "synthetic patients with truth, for scoring", low=1)
    short_steps: int = option(150, "training steps of a demonstration", low=1)
    scans_steps: int = option(10000, "training steps on real slices", low=1)
    phantom_steps: int = option(10000, "training steps on the phantom", low=1)

    @property
    def architecture(self) -> Architecture:
        return self.pick(Architecture)

    @property
    def objective(self) -> Objective:
        return self.pick(Objective)

    @property
    def training(self) -> Training:
        return self.pick(Training)

    def training_steps(self, dataset: str) -> int:
        """Training steps on the data set of this name: `steps` if set, else the profile's."""
        if self.steps:
            return self.steps
        synthetic = dataset in ("phantom", "atlas", "heads")
        return self.phantom_steps if synthetic else self.scans_steps


def check_network_size(size: int) -> None:
    """Refuse pictures that the networks cannot halve twice and see a head in.

    Args:
        size: pixels per side.

    Raises:
        ValueError: it is no multiple of 4, or below 32.
    """
    if size % 4 or size < 32:
        raise ValueError(
            f"size={size} does not suit the networks: choose a multiple of 4, at least 32"
        )


def read_table(name: str) -> dict[str, Any]:
    """A TOML file that comes with the package."""
    return tomllib.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))


PROFILES = {name: Settings.of(row) for name, row in read_table("profiles.toml").items()}
"""Sizes for three kinds of machine."""

PRESETS = read_table("presets.toml")
"""Some settings by one name, over any profile."""

REFERENCE_NAMES = read_table("reference_names.toml")
"""Options of the reference implementation that are called otherwise here, with what to do."""

DEFAULT_RUN = {"profile": "laptop", "dataset": "phantom", "seed": 2026, "start": ""}
"""What a settings file names besides the settings."""


def settings_for(profile: str) -> Settings:
    """The settings of a profile, with a warning if "gpu" meets no GPU.

    Raises:
        ValueError: an unknown profile; it names the known ones.
    """
    if profile not in PROFILES:
        raise ValueError(f"PROFILE={profile!r} is not known: choose one of {', '.join(PROFILES)}")

    if profile == "gpu":
        # Not above: the other profiles, and `--help`, do without torch.
        import torch

        if not torch.cuda.is_available():
            warnings.warn(
                "PROFILE='gpu' without a GPU trains for days: choose 'laptop', or a machine with "
                "CUDA",
                stacklevel=2,
            )
    return PROFILES[profile]


def read_settings(path: Path | None, changes: dict) -> tuple[dict, Settings]:
    """What to train on, and the settings to train with.

    Later ones win: the profile, the preset if one is named, the file, the changes.

    Args:
        path: a TOML file, or None.
        changes: settings by name; also profile, dataset, seed, start and preset.

    Returns:
        The run (profile, dataset, seed, start), and the settings.

    Raises:
        ValueError: an unknown name or a value out of range; it names the file.
        OSError: the file cannot be read.
    """
    values = changes if path is None else read_toml(path) | changes
    try:
        run = {
            name: convert(values.get(name, default), type(default))
            for name, default in DEFAULT_RUN.items()
        }
        for name, value in run.items():
            if type(value) is not type(DEFAULT_RUN[name]):
                raise ValueError(f"{name}={value!r} should be like {DEFAULT_RUN[name]!r}")

        preset = values.get("preset")
        if preset is not None and preset not in PRESETS:
            raise ValueError(f"preset={preset!r} is not known: choose one of {', '.join(PRESETS)}")

        own = {name: values[name] for name in values if name not in (*DEFAULT_RUN, "preset")}
        profile = asdict(settings_for(run["profile"]))
        return run, Settings.of(profile | PRESETS.get(preset, {}) | own)
    except ValueError as error:
        raise ValueError(f"{path or 'the settings'}: {error}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """A settings file as a dict.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not TOML.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        if WINDOWS_PATH.search(text):
            raise ValueError(
                f"{path} has a path with backslashes in double quotes, which TOML reads as special "
                "characters: write it in single quotes or with forward slashes"
            )
        return tomllib.loads(text)
    except OSError as error:
        raise type(error)(
            f"{path} cannot be read ({error.strerror}): give the path of a settings file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(
            f"{path} is no TOML text ({error}): write lines such as learning_rate = 0.0002"
        ) from error


def to_toml(values: Mapping[str, Any]) -> str:
    """A flat mapping of texts, numbers and truth values as TOML, which `read_toml` reads back."""
    lines = (
        f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items()
    )
    return "".join(lines)


def read_words(words: Mapping[str, str]) -> dict[str, Any]:
    """Settings from words of the command line; what is a text stays as it was typed."""
    texts = {spec.name for spec in fields(Settings) if type(spec.default) is str}
    texts |= {"profile", "preset", "dataset", "start"}
    return {name: word if name in texts else literal(word) for name, word in words.items()}


def literal(text: str) -> Any:
    """A word of the command line as Python or TOML reads it (1, 6e-4, true, None), else as text."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
