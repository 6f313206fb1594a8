"""Every setting that there is, with its default (the reference's) and its limits.

The profiles are rows of `profiles.toml`.
"""

from __future__ import annotations

import ast
import difflib
import json
import math
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any


def option(default, *, choices: tuple = (), low: float = 0, high: float = math.inf):
    """A field that `Options` checks: one of `choices`, or a number from `low` to `high`."""
    return field(default=default, metadata={"choices": choices, "low": low, "high": high})


@dataclass(frozen=True)
class Options:
    """A frozen set of options, checked when it is made.

    ValueError, in one sentence, for a wrong type, choice or range.
    """

    def __post_init__(self):
        for spec in fields(self):
            value, limits = getattr(self, spec.name), spec.metadata
            kind = type(spec.default)
            if kind is float and type(value) is int:
                value = float(value)
                object.__setattr__(self, spec.name, value)
            if type(value) is not kind:
                raise ValueError(f"{spec.name}={value!r} should be {KINDS[kind]}")
            if limits.get("choices") and value not in limits["choices"]:
                raise ValueError(
                    f"{spec.name}={value!r} is not known: choose one of "
                    f"{', '.join(limits['choices'])}"
                )
            if kind in (int, float) and not (
                limits["low"] <= value <= limits["high"] and value < math.inf
            ):
                upper = (
                    (" and finite" if value == math.inf else "")
                    if math.isinf(limits["high"])
                    else f" and at most {limits['high']:g}"
                )
                raise ValueError(f"{spec.name}={value} should be at least {limits['low']:g}{upper}")

    @classmethod
    def of(cls, values: Mapping[str, Any]):
        """These options from a mapping.

        ValueError for a name that is none of them, with the nearest one.
        """
        known = [spec.name for spec in fields(cls)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                advice = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"
                raise ValueError(f"{name} is no option here: {advice}")
        return cls(**values)

    def pick(self, part: type[Options]):
        """Those of these options that belong to `part`, as a `part`."""
        return part(**{spec.name: getattr(self, spec.name) for spec in fields(part)})


KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Architecture(Options):
    """The four networks of a CycleGAN.

    Kept in every checkpoint, so that a file says how to rebuild its model.
    """

    # width of the generators
    ngf: int = option(64, low=1, high=2**16)
    # width of the discriminators
    ndf: int = option(64, low=1, high=2**16)
    # residual blocks of a ResNet generator
    n_blocks: int = option(9)
    # layers of the PatchGAN; 3 is the reference's "basic"
    n_layers: int = option(3, low=1)
    norm: str = option("instance", choices=("instance", "batch", "none"))
    # "resnet", or a U-Net named by the side it divides to one pixel: unet_256, unet_128 ...
    generator: str = option("resnet")
    discriminator: str = option("n_layers", choices=("n_layers", "pixel"))
    dropout: bool = option(False)
    upsampling: str = option("transposed", choices=("transposed", "resize"))
    # spectral norm on the discriminators
    spectral: bool = option(False)
    ct_channels: int = option(1, low=1)
    mri_channels: int = option(1, low=1)
    # how networks see CT: `units.CT_MAPS`
    ct_map: str = option("linear", choices=("linear", "piecewise", "two_windows"))
    init: str = option("normal", choices=("normal", "xavier", "kaiming", "orthogonal"))
    init_gain: float = option(0.02)


GAN_MODES = ("lsgan", "vanilla", "hinge", "wgangp")


@dataclass(frozen=True)
class Objective(Options):
    """What the networks are asked to minimise.

    Weights beside the adversarial loss at 1, and how it is computed.
    """

    # of |cycled_ct - ct|; the reference's lambda_A
    cycle_ct: float = option(10.0)
    # of |cycled_mri - mri|; lambda_B
    cycle_mri: float = option(10.0)
    # of |G_mri2ct(ct) - ct| + |G_ct2mri(mri) - mri|; lambda_identity times lambda
    identity: float = option(5.0)
    # of the discriminators' verdicts; 0: there are no discriminators
    adversarial: float = option(1.0)
    # of `losses.gradient_loss`, both ways, as the next two
    gradient: float = option(0.0)
    # of `losses.mind_loss`
    mind: float = option(0.0)
    # of `losses.correlation_loss`
    correlation: float = option(0.0)
    # of `losses.mask_loss`: the fake CT's head where the MR's is
    mask: float = option(0.0)
    # of `losses.patch_nce_loss`, both ways
    nce: float = option(0.0)
    # of the same, when a generator is given what it should produce: CUT asks for both
    nce_identity: float = option(0.0)
    # of |fake_ct - ct| + |fake_mri - mri|; needs pairs: sampling = "paired"
    supervised: float = option(0.0)
    # SD of the noise on a translation before its way back
    translation_noise: float = option(0.0)
    gan_mode: str = option("lsgan", choices=GAN_MODES)
    # of wgangp
    gradient_penalty: float = option(10.0)
    # translations that a discriminator may meet again
    pool_size: int = option(50)


@dataclass(frozen=True)
class Training(Options):
    """How `fit` trains: length, step size, precision, and how slices are moved about."""

    # training steps; 0 in a profile: what it has for the data set
    steps: int = option(0)
    # images of each modality per step (and per process)
    batch_size: int = option(1, low=1)
    # which MR meets a CT: any, one of like height, its own
    sampling: str = option("random", choices=("random", "position", "paired"))
    learning_rate: float = option(2e-4)
    # of Adam
    beta1: float = option(0.5, high=1)
    beta2: float = option(0.999, high=1)
    lr_policy: str = option("linear", choices=("linear", "step", "cosine", "plateau"))
    # "linear": the last share of the steps, over which the rate falls
    decay_share: float = option(0.5, high=1)
    # largest norm of a gradient; 0: whatever it is
    clip_norm: float = option(0.0)
    # memory of the running mean of the generators' weights; 0: the last weights
    ema: float = option(0.998, high=1)
    precision: str = option("fp32", choices=("fp32", "bf16", "fp16"))
    # torch.compile the networks
    compile: bool = option(False)
    # resize training slices to this many pixels; 0: as they are
    load_size: int = option(0)
    # then cut out squares of this many; 0: whole
    crop_size: int = option(0)
    # mirror half of them left to right
    flip: bool = option(True)
    # move by up to this share of the side, in whole pixels
    shift: float = option(1 / 32, high=0.5)
    # turn by up to this angle
    rotation_deg: float = option(0.0, high=180)
    # brighten or darken MR by up to this share; CT never, its numbers mean something
    jitter: float = option(0.0, high=1)


@dataclass(frozen=True)
class Settings(Architecture, Objective, Training):
    """How large the lessons run, and everything else that can be set; `PROFILES` holds three."""

    # pixels per side of the phantom's slices
    size: int = option(256, low=32)
    # pixels per side of real slices
    scans_size: int = option(256, low=32)
    # synthetic patients per domain, for training
    patients: int = option(1000, low=1)
    # synthetic patients with truth, for scoring
    test_patients: int = option(40, low=1)
    # training steps of a demonstration
    short_steps: int = option(150, low=1)
    # training steps on the embedded scans (or the reader's own)
    scans_steps: int = option(10000, low=1)
    # training steps on the phantom
    phantom_steps: int = option(10000, low=1)

    def training(self, steps: int) -> dict[str, Any]:
        """The options of `fit` for a training of so many steps.

        `fit(model, ct, mri, seed=seed, **settings.training(steps))`.
        """
        return asdict(self.pick(Training)) | {"steps": steps}

    def training_steps(self, dataset: str) -> int:
        """Training steps on a data set by its name.

        `steps` if set, else the phantom's or everything else's.
        """
        return self.steps or (self.phantom_steps if dataset == "phantom" else self.scans_steps)


def tables(name: str) -> dict[str, dict[str, Any]]:
    return tomllib.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))


PROFILES = {name: Settings.of(row) for name, row in tables("profiles.toml").items()}
PRESETS = tables("presets.toml")
"""Some settings by one name, over any profile."""


def read_toml(path: Path) -> dict[str, Any]:
    """A settings file as a dict.

    Raises OSError or ValueError, in one sentence, if it cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise type(error)(
            f"{path} cannot be read ({error.strerror}): give the path of a settings file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(
            f"{path} is no TOML text ({error}): write lines such as learning_rate = 0.0002"
        ) from error


def literal(text: str) -> Any:
    """A word of the command line as Python or TOML reads it (1, 6e-4, true, None), else as text."""
    try:
        return (
            {"true": True, "false": False}[text]
            if text in ("true", "false")
            else ast.literal_eval(text)
        )
    except (ValueError, SyntaxError):
        return text


def to_toml(values: Mapping[str, Any]) -> str:
    """A flat mapping of texts, numbers and truth values as TOML, which `read_toml` reads back."""
    return "".join(
        f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items()
    )


def settings_for(profile: str) -> Settings:
    """The sizes of a profile, with a warning where "gpu" meets none.

    Raises ValueError, naming the known ones, for another name.
    """
    if profile not in PROFILES:
        raise ValueError(f"PROFILE={profile!r} is not known: choose one of {', '.join(PROFILES)}")
    if profile == "gpu":
        # Not above: the other profiles, and `--help`, do without torch.
        import torch

    if profile == "gpu" and not torch.cuda.is_available():
        warnings.warn(
            "PROFILE='gpu' without a GPU trains for days: choose 'laptop', or a machine with CUDA",
            stacklevel=2,
        )
    return PROFILES[profile]


# what a settings file names besides the settings
WHAT = {"profile": "laptop", "dataset": "phantom", "seed": 2026}


def read_settings(path: Path | None, changes: dict) -> tuple[dict, Settings]:
    """What to train on (profile, dataset, seed), and the settings.

    The profile's, the preset's if one is named, the file's, the `changes`.

    Raises ValueError or FileNotFoundError, in one sentence that names the file, for whatever is not
    known or out of range.
    """
    said = (read_toml(path) if path else {}) | changes
    try:
        what = {name: said.pop(name, value) for name, value in WHAT.items()}
        for name, value in what.items():
            if type(value) is not type(WHAT[name]):
                raise ValueError(f"{name}={value!r} should be like {WHAT[name]!r}")
        preset = said.pop("preset", None)
        if preset is not None and preset not in PRESETS:
            raise ValueError(f"preset={preset!r} is not known: choose one of {', '.join(PRESETS)}")
        return what, Settings.of(
            asdict(settings_for(what["profile"])) | PRESETS.get(preset, {}) | said
        )
    except ValueError as error:
        raise ValueError(f"{path or 'the settings'}: {error}") from error
