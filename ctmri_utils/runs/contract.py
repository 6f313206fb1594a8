"""What networks expect of the slices that they are given, kept with their weights.

A contract stands in the metadata of weights, checkpoints and ONNX files, as plain JSON under the
key "contract" of the card. `translate` reads it, so that nobody types the size of a training run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..cyclegan.model import Translator
from ..issue_report import revision
from ..machine import CHECKOUT
from ..scans.unpaired import UnpairedScans
from ..settings import PRESETS, Settings
from ..units import CT_MAPS, GREY, HU, MODALITIES, MRI_PERCENTILES, Scale

ORIENTATION = "axial, forehead up, the patient's right on the left"

# Pixel sizes that differ by no more than this share count as equal.
ROUNDING = 0.01


@dataclass(frozen=True)
class Contract:
    """What networks were trained on, and so what they expect.

    Args:
        size: pixels per side of a slice.
        pixel_mm: their side in mm, None if nobody knows it.
        data: what they learned from, in words.
        unseen: what they never saw, in words.
        orientation: of the slices, in words.
        ct_low: CT value that becomes -1.
        ct_high: CT value that becomes 1.
        ct_unit: of both, "HU", or "grey level" for pictures without HU.
        ct_map: how the networks see CT, a name of `units.CT_MAPS`.
        mri_percentiles: the values of the MR inside the head that become -1 and 1, see `mri_scale`.
        makes: what the networks make, "ct" from MR and "mri" from CT.
        preset: the named settings of the training, "" for others.
        revision: of the code that trained them.
        seed: of the training.
        steps: of the training.

    Raises:
        ValueError: in one sentence, a value that no networks can have.
    """

    size: int
    pixel_mm: float | None
    data: str
    unseen: str = "any other person, scanner, sequence or disease"
    orientation: str = ORIENTATION
    ct_low: float = HU.low
    ct_high: float = HU.high
    ct_unit: str = HU.unit
    ct_map: str = "linear"
    mri_percentiles: tuple[float, float] = MRI_PERCENTILES
    makes: tuple[str, ...] = tuple(MODALITIES)
    preset: str = ""
    revision: str = "unknown"
    seed: int = 0
    steps: int = 0

    def __post_init__(self):
        # JSON turns tuples into lists.
        for name in ("mri_percentiles", "makes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

        known_scale = self.ct_scale in (HU, GREY)
        known_makes = bool(self.makes) and set(self.makes) <= set(MODALITIES)
        checks = {
            f"slices of {self.size} pixels": self.size >= 1,
            f"pixels of {self.pixel_mm} mm": self.pixel_mm is None or self.pixel_mm > 0,
            f"CT from {self.ct_low} to {self.ct_high} {self.ct_unit}": known_scale,
            f"the CT map {self.ct_map!r}": self.ct_map in CT_MAPS,
            f"the MR percentiles {self.mri_percentiles}": self.mri_percentiles == MRI_PERCENTILES,
            f"networks that make {self.makes}": known_makes,
        }
        for words, passes in checks.items():
            if not passes:
                raise ValueError(
                    f"a contract for {words} is not known to this version: correct it, or update "
                    "ctmri-utils"
                )

    @property
    def ct_scale(self) -> Scale:
        """Turns CT into the range of the networks."""
        return Scale(self.ct_low, self.ct_high, self.ct_unit)

    @classmethod
    def of(cls, values: Mapping[str, Any] | None) -> Contract | None:
        """The contract in a file's metadata; None for a file that is older than contracts.

        Raises:
            ValueError: it cannot be read, or is of a later version.
        """
        if values is None:
            return None
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(
                f"its contract cannot be read ({error}): update ctmri-utils, or copy or download "
                "the file again"
            ) from error

    def describe(self) -> str:
        """The slices that the networks know, and then what they learned from, in sentences."""
        pixel = f"{self.pixel_mm:.3g} mm" if self.pixel_mm else "unknown size"
        return (
            f"slices of {self.size} x {self.size} pixels of {pixel}, CT from {self.ct_low:g} to "
            f"{self.ct_high:g} {self.ct_unit} ({self.ct_map} map), MR between the percentiles "
            f"{self.mri_percentiles[0]:g} and {self.mri_percentiles[1]:g} of the head. They "
            f"learned from {self.data}. They never saw {self.unseen}"
        )

    def check_slices(self, size: int | None, pixel_mm: float | None) -> None:
        """Raise ValueError where a size or pixel size, if given, contradicts the contract."""
        if size is not None and size != self.size:
            raise ValueError(
                f"size {size} contradicts these weights, which know slices of {self.size} pixels: "
                "leave the size out"
            )
        if pixel_mm is None or self.pixel_mm is None:
            return
        if abs(pixel_mm - self.pixel_mm) > ROUNDING * self.pixel_mm:
            raise ValueError(
                f"pixels of {pixel_mm:g} mm contradict these weights, which know pixels of "
                f"{self.pixel_mm:.4g} mm: leave the pixel size out"
            )


def contract_for(
    scans: UnpairedScans, settings: Settings, seed: int, steps: int, start: str | Path = ""
) -> Contract:
    """The contract of networks that are trained on these scans, in these settings.

    Args:
        scans: of which the training slices count.
        settings: of the training.
        seed: of the training.
        steps: of the training.
        start: the file whose weights it starts from, if it does.
    """
    ct, mri = scans.train.ct, scans.train.mri
    data = f"{scans.name}, {len(ct)} CT and {len(mri)} MR slices"
    if start:
        data += f", starting from {'/'.join(Path(start).parts[-2:])}"
    return Contract(
        size=ct.shape[-1],
        pixel_mm=scans.spacing_mm,
        data=data,
        ct_low=scans.ct_scale.low,
        ct_high=scans.ct_scale.high,
        ct_unit=scans.ct_scale.unit,
        ct_map=settings.ct_map,
        preset=preset_of(settings),
        revision=revision(CHECKOUT) if CHECKOUT else "unknown",
        seed=seed,
        steps=steps,
    )


def sized_for(model: Translator, settings: Settings) -> Settings:
    """The settings with slices of the size that a model knows, if its contract says one."""
    if model.contract is None:
        return settings
    size = model.contract.size
    return replace(settings, size=size, scans_size=size)


def settings_for_scans(settings: Settings, scans: UnpairedScans) -> Settings:
    """The settings, but CT in grey levels is seen as it is: the CT maps stretch ranges of HU.

    Raises:
        ValueError: the mask loss, which counts in HU, meets CT in grey levels.
    """
    unit = scans.ct_scale.unit
    if unit == HU.unit:
        return settings
    if settings.mask:
        raise ValueError(
            f"mask={settings.mask:g} needs CT in HU, but the CT of this set is in {unit}s: leave "
            "it out"
        )
    return replace(settings, ct_map="linear")


def preset_of(settings: Settings) -> str:
    """The name of the preset whose values these settings have, "" if there is none."""
    values = asdict(settings)
    for name, preset in PRESETS.items():
        if preset.items() <= values.items():
            return name
    return ""
