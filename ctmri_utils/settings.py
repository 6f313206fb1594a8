"""Every setting, with its default (the reference implementation's), its limits and a line of help.

The tables of profiles, presets and data sets are .toml files beside this one.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from .options import Options, option, read_toml

NORMS = ("instance", "batch", "none")
INITS = ("normal", "xavier", "kaiming", "orthogonal")


@dataclass(frozen=True)
class Architecture(Options):
    """The four networks of a CycleGAN.

    Kept in every checkpoint, so that a file says how to rebuild its model.
    """

    ngf: int = option(64, "width of the generators", low=1, high=2**16)
    ndf: int = option(64, "width of the discriminators", low=1, high=2**16)
    n_blocks: int = option(9, "residual blocks of a ResNet generator")
    n_layers: int = option(3, 'layers of the PatchGAN; 3 is the reference\'s "basic"', low=1)
    norm: str = option("instance", "normalisation of all networks", choices=NORMS)
    generator: str = option(
        "resnet",
        "resnet, or a U-Net that halves this many pixels to one: unet_256, unet_128 and so on",
    )
    discriminator: str = option(
        "n_layers", "a PatchGAN of n_layers, or a verdict per pixel", choices=("n_layers", "pixel")
    )
    dropout: bool = option(False, "dropout in the generators")
    upsampling: str = option(
        "transposed",
        "transposed convolution, or resize and convolve, which leaves no checkerboard pattern",
        choices=("transposed", "resize"),
    )
    spectral: bool = option(False, "spectral norm in the discriminators")
    ct_channels: int = option(1, "channels of a CT slice", low=1)
    mri_channels: int = option(1, "channels of an MR slice", low=1)
    ct_map: str = option(
        "linear",
        "how HU are mapped to the networks' range, see units.CT_MAPS",
        choices=("linear", "piecewise", "two_windows"),
    )
    init: str = option("normal", "distribution of the initial weights", choices=INITS)
    init_gain: float = option(
        0.02, "standard deviation of the initial weights, or gain of xavier and orthogonal"
    )


GAN_MODES = ("lsgan", "vanilla", "hinge", "wgangp")


@dataclass(frozen=True)
class Objective(Options):
    """What the networks minimise: the weights of the losses, and how they are computed."""

    cycle_ct: float = option(10.0, "weight of |cycled_ct - ct|; the reference's lambda_A")
    cycle_mri: float = option(10.0, "weight of |cycled_mri - mri|; the reference's lambda_B")
    identity: float = option(
        5.0,
        "weight of |G_mri2ct(ct) - ct| + |G_ct2mri(mri) - mri|; the reference's lambda_identity "
        "times lambda_A",
    )
    adversarial: float = option(1.0, "weight of the adversarial loss; 0: no discriminators train")
    gradient: float = option(0.0, "weight of remedies.gradient_loss, in both directions")
    mind: float = option(0.0, "weight of remedies.mind_loss, in both directions")
    correlation: float = option(0.0, "weight of remedies.correlation_loss, in both directions")
    mask: float = option(
        0.0, "weight of remedies.mask_loss: the fake CT's head must lie where the MR's does"
    )
    nce: float = option(0.0, "weight of remedies.patch_nce_loss, in both directions")
    nce_identity: float = option(
        0.0,
        "weight of remedies.patch_nce_loss for a generator whose input is already what it should "
        "produce, as in CUT",
    )
    supervised: float = option(
        0.0, 'weight of |fake_ct - ct| + |fake_mri - mri|; needs pairs and sampling = "paired"'
    )
    translation_noise: float = option(0.0, "SD of noise added before translating back")
    gan_mode: str = option("lsgan", "form of the adversarial loss", choices=GAN_MODES)
    gradient_penalty: float = option(10.0, "weight of the gradient penalty of wgangp")
    pool_size: int = option(50, "earlier translations kept to show the discriminators again")


@dataclass(frozen=True)
class Training(Options):
    """How `fit` trains: length, step size, precision, and augmentation."""

    steps: int = option(0, "training steps; 0: scans_steps or phantom_steps, by data set")
    batch_size: int = option(1, "images of each modality per step (and per process)", low=1)
    sampling: str = option(
        "random",
        "which MR a CT is paired with: any, one from a similar height, or its own",
        choices=("random", "position", "paired"),
    )
    learning_rate: float = option(2e-4, "Adam's learning rate")
    beta1: float = option(0.5, "Adam's beta1, the memory of the mean gradient", high=1)
    beta2: float = option(0.999, "Adam's beta2, the memory of the mean squared gradient", high=1)
    lr_policy: str = option(
        "linear",
        "how the learning rate decays",
        choices=("linear", "step", "cosine", "plateau"),
    )
    decay_share: float = option(
        0.5, "share of the steps, at the end, over which lr_policy linear decays the rate", high=1
    )
    clip_norm: float = option(0.0, "clip gradients to this norm; 0: no limit")
    ema: float = option(
        0.998, "memory of the generators' running mean of weights; 0: use the last weights", high=1
    )
    precision: str = option(
        "fp32",
        "number format of the networks; auto: the fastest that this machine supports in hardware",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    compile: bool = option(False, "compile the networks with torch.compile")
    load_size: int = option(0, "resize training slices to this many pixels; 0: do not resize")
    crop_size: int = option(
        0, "crop resized training slices to squares of this many pixels; 0: do not crop"
    )
    flip: bool = option(True, "mirror half of the slices left to right")
    shift: float = option(1 / 32, "shift by up to this share of the side, whole pixels", high=0.5)
    rotation_deg: float = option(0.0, "rotate by up to this angle, in degrees", high=180)
    jitter: float = option(
        0.0, "brighten or darken MR by up to this share; never CT, since HU are calibrated", high=1
    )


@dataclass(frozen=True)
class Settings(Architecture, Objective, Training):
    """How large the lessons run, and everything else that can be set; `PROFILES` holds three."""

    size: int = option(256, "pixels per side of the phantom's slices", low=32)
    scans_size: int = option(256, "pixels per side of real slices", low=32)
    patients: int = option(1000, "synthetic patients of each modality, for training", low=1)
    test_patients: int = option(40, "synthetic patients with a known truth, for scoring", low=1)
    short_steps: int = option(150, "training steps of a short demonstration", low=1)
    scans_steps: int = option(10000, "training steps on real slices", low=1)
    phantom_steps: int = option(10000, "training steps on the phantom", low=1)

    @property
    def architecture(self) -> Architecture:
        """The settings that build the networks."""
        return self.pick(Architecture)

    @property
    def objective(self) -> Objective:
        """The settings that weigh the losses."""
        return self.pick(Objective)

    @property
    def training(self) -> Training:
        """The settings that `fit` trains by."""
        return self.pick(Training)

    def training_steps(self, dataset: str) -> int:
        """Training steps on the data set of this name: `steps` if set, else the profile's."""
        if self.steps:
            return self.steps
        synthetic = "synthetic" in DATASETS.get(dataset, {})
        return self.phantom_steps if synthetic else self.scans_steps


def check_network_size(size: int) -> None:
    """Refuse pictures that the networks cannot halve twice and see a head in.

    Args:
        size: pixels per side.

    Raises:
        ValueError: it is not a multiple of 4, or below 32.
    """
    if size % 4 or size < 32:
        raise ValueError(
            f"size={size} does not suit the networks: choose a multiple of 4, at least 32"
        )


TABLES = Path(__file__).parent

# Sizes for three kinds of machine.
PROFILES = {name: Settings(**row) for name, row in read_toml(TABLES / "profiles.toml").items()}

# Some settings by one name, over any profile.
PRESETS = read_toml(TABLES / "presets.toml")

# The data sets that have a name, each with a few words of help and what is known of it.
DATASETS = read_toml(TABLES / "datasets.toml")

NAMED_DATASETS = [f"{name} ({row['help']})" for name, row in DATASETS.items()]


@dataclass(frozen=True)
class Run(Options):
    """What a settings file names besides the settings."""

    profile: str = option("laptop", "sizes for this kind of machine", choices=tuple(PROFILES))
    dataset: str = option("scans", f"{', '.join(NAMED_DATASETS)}, or the path of a folder")
    seed: int = option(
        2026,
        "seed of the initial weights, the order of slices, and synthetic patients",
        high=2**32 - 1,
    )
    start: str = option("", "a run, weights (heads, phantom or a file) or a .pth to start from")


def settings_for(profile: str) -> Settings:
    """The settings of a profile, with a warning if "gpu" meets no GPU.

    Raises:
        ValueError: an unknown profile; it names the known ones.

    Example:
        >>> from ctmri_utils import settings_for
        >>> settings = settings_for("laptop")
        >>> settings.size, settings.architecture.n_blocks
        (64, 4)
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}: choose one of {', '.join(PROFILES)}")

    if profile == "gpu":
        # Imported here because it is slow, and neither the other profiles nor `--help` need it.
        import torch

        if not torch.cuda.is_available():
            warnings.warn(
                "profile 'gpu' without a GPU trains for days: choose 'laptop', or a machine with "
                "CUDA",
                stacklevel=2,
            )
    return PROFILES[profile]


def read_settings(path: Path | None, changes: dict) -> tuple[Run, Settings]:
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
    values = ({} if path is None else read_toml(path)) | changes
    run_names = [spec.name for spec in fields(Run) if spec.name in values]
    try:
        run = Run(**{name: values.pop(name) for name in run_names})
        preset = values.pop("preset", None)
        if preset is not None and preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r}: choose one of {', '.join(PRESETS)}")

        profile = asdict(settings_for(run.profile))
        return run, Settings(**profile | PRESETS.get(preset, {}) | values)
    except ValueError as error:
        if path is None:
            raise
        raise ValueError(f"{path}: {error}") from error
