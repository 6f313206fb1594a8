"""Volumes through a trained translator: one in memory, or every scan of a file or folder.

`ctmri translate INPUT OUTPUT --weights FILE`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..cyclegan.model import Translator
from ..discovery import ERROR_MAP_ENDING, printable, stem
from ..machine import progress_bar
from ..runs.weights import ReferenceTranslator, load_translator
from ..seeds import set_up
from ..units import MODALITIES, other_modality
from .error_maps import Calibration, calibrate, expected_error
from .input_checks import check_input
from .network_slices import SCALES, check_one_channel, network_slices, translate_slices
from .scan_files import Scan, is_volume_file, list_scans, write_volume
from .volume import Volume, check_even, check_free


def translate_volume(
    model: Translator,
    volume: Volume,
    size: int | None = None,
    spacing_mm: float | None = None,
    smooth_mm: float = 0.0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Volume:
    """Translate an MR volume into a CT, or a CT into an MR, on the grid of the volume.

    The head is found in the volume itself; what lies outside is background before and after the
    network. The stages are `network_slices`, `check_input`, `translate_slices`, and
    `AxialStack.back_onto`.

    Args:
        model: a CycleGAN, or anything else with `translate(images, to)`. Its `contract`, if it has
            one, says which slices it knows.
        volume: the scan.
        size: pixels per side of the network's slices, see `axial`; None as the contract says, and
            128 without one.
        spacing_mm: their pixel size, see `axial`; None likewise.
        smooth_mm: SD of a Gaussian across the slices of the result.
        progress: wraps the loop over batches.

    Returns:
        The translation: CT in HU, -1000 to 1000, MR from 0 to 4095. Its warnings name what the
        networks have not seen, see `input_checks`.

    Raises:
        ValueError: there is no head, the networks cannot know such a scan, the size contradicts the
            contract, or the smoothing is not 0 to 100 mm or is across slices that lie unevenly.

    Example:
        >>> import numpy as np
        >>> from ctmri_utils import Volume, synthetic_patients, trained_translator, translate_volume
        >>> patient = synthetic_patients(1, seed=2026, slices=12)  # 5 mm apart
        >>> affine = np.diag([-3.4, -3.4, 5.0, 1.0])
        >>> mri = Volume(patient.mri[0].T, affine, "mri")
        >>> model, source = trained_translator("heads", "laptop", seed=2026)
        >>> ct = translate_volume(model, mri)
        >>> ct.modality, ct.values.shape
        ('ct', (64, 64, 12))
    """
    if not 0 <= smooth_mm <= 100:
        raise ValueError(f"smoothing by {smooth_mm:g} mm is out of range: choose 0 to 100")
    if smooth_mm:
        check_even(volume, "they are smoothed only where even: leave the smoothing out")

    stack, images, notes = network_slices(model, volume, size, spacing_mm)
    # The checks were made for scanned heads, so what a network painted is not checked.
    warnings = () if volume.synthetic else check_input(volume, stack)

    to = other_modality(volume.modality)
    result = translate_slices(model, images, to, progress)
    if smooth_mm:
        sd_slices = smooth_mm / stack.spacing_mm[0]
        result = ndimage.gaussian_filter1d(result, sd_slices, axis=0, mode="nearest")
    scale = SCALES[to]
    result = scale.from_network(np.where(stack.head_and_rim, result, -1)).astype(np.float32)
    return replace(
        volume,
        values=stack.back_onto(volume, result, scale.low),
        modality=to,
        notes=(*volume.notes, *stack.notes, *notes),
        synthetic=True,
        warnings=warnings,
    )


@dataclass(frozen=True)
class TranslationOptions:
    """How scans on disk are translated.

    Args:
        to: "ct" or "mri", what to make; None: the other modality of each scan, which its file says,
            or else its values.
        size: pixels per side of the network's slices, as in `translate_volume`.
        spacing_mm: their pixel size, likewise.
        smooth_mm: SD of a Gaussian across the slices of the result.
        padding: of a reference network, see `load_reference`.
        round_trip: translate translations of this package too.
        uncertainty: also write the error to expect, see `expected_error`.
    """

    to: str | None = None
    size: int | None = None
    spacing_mm: float | None = None
    smooth_mm: float = 0.0
    padding: str = "reflect"
    round_trip: bool = False
    uncertainty: bool = False

    @property
    def modality(self) -> str | None:
        """Of the scans, None: as each says of itself."""
        return None if self.to is None else other_modality(self.to)


def translate_files(source: Path, output: Path, weights: Path, options: TranslationOptions) -> None:
    """Translate every scan in a file or folder, and print a line for each.

    A scan that cannot be read is reported and left out.

    Args:
        source: a NIfTI, .mha, .mhd, .nrrd or DICOM file, or a folder of them.
        output: what to make, see the command's help.
        weights: a run or weights, see `load_translator`.
        options: see `TranslationOptions`.

    Raises:
        FileNotFoundError: there is no scan.
        FileExistsError: an output exists; raised before any work.
        ValueError: the weights do not suit, or scans were left out; the latter at the end.
    """
    if options.uncertainty and options.smooth_mm:
        raise ValueError(
            "the expected error is calibrated without smoothing: leave --smooth-mm or "
            "--uncertainty out"
        )
    # What can be refused at once comes before the weights, which take longer to load.
    scans = list_translations(source, output, options)
    model = load_networks(weights, options)
    translate_scans(scans, model, options)


def list_translations(
    source: Path, output: Path, options: TranslationOptions
) -> list[tuple[Scan, Path]]:
    """The scans to translate, each with the path of its translation, which is free.

    Raises:
        FileNotFoundError: there is no scan.
        FileExistsError: an output exists.
    """
    scans, notes = list_scans(source).select(options.modality, options.round_trip)
    for note in notes:
        print(f"note: {note}")

    paths = output_paths(scans, Path(output))
    for path in paths:
        check_free(path)
        if options.uncertainty:
            check_free(error_map_of(path))
    return list(zip(scans, paths, strict=True))


def output_paths(scans: list[Scan], output: Path) -> list[Path]:
    """The path of each translation: the output itself, or a file or folder in it."""
    if len(scans) == 1 and (is_volume_file(output) or not scans[0].is_file):
        return [output]
    return [output / scan.name for scan in scans]


def load_networks(weights: Path, options: TranslationOptions) -> Translator:
    """The model in a run or a file, which suits the options; prints what it knows.

    Raises:
        ValueError: the weights cannot be used, or contradict the options.
    """
    model = load_translator(weights, options.to, options.padding).to(set_up(seed=0))
    if isinstance(model, ReferenceTranslator):
        print(
            f"note: {weights} does not say which grey levels its network knows: CT from -1000 to "
            "1000 HU, and MR scaled by its own head, become -1 to 1"
        )
    if model.contract:
        model.contract.check_slices(options.size, options.spacing_mm)
        print(f"The networks know {model.contract.describe()}.")
    check_one_channel(model, weights)
    return model


def translate_scans(
    scans: list[tuple[Scan, Path]], model: Translator, options: TranslationOptions
) -> None:
    """Translate scans, each to its path, and print a line for each.

    Args:
        scans: from `list_translations`.
        model: as in `translate_volume`.
        options: see `TranslationOptions`.

    Raises:
        ValueError: scans were left out; raised at the end.
    """
    calibrations: dict[str, Calibration] = {}
    failed = 0
    for k, (scan, path) in enumerate(scans, start=1):
        title = f"scan {k} of {len(scans)}"
        try:
            volume = translate_scan(scan, path, model, options, title)
            if options.uncertainty:
                write_error_map(volume, error_map_of(path), model, options, calibrations)
        except (ValueError, PermissionError) as error:
            failed += 1
            is_named = str(scan.files[0].parent) in str(error)
            source = "" if is_named else f"{scan.source}: "
            print(printable(f"{title} is left out: {source}{error}"), file=sys.stderr)
    if failed:
        raise ValueError(f"{failed} of {len(scans)} scans were not translated: see above")


def translate_scan(
    scan: Scan, path: Path, model: Translator, options: TranslationOptions, title: str
) -> Volume:
    """Read a scan, write its translation and say so. Returns the scan."""
    volume = replace(scan.read(options.modality), synthetic=scan.synthetic)
    grid = (options.size, options.spacing_mm)
    bar = progress_bar("batch", title)
    result = translate_volume(model, volume, *grid, options.smooth_mm, bar)
    write_volume(result, path)

    description = replace(volume, notes=result.notes, warnings=result.warnings).describe()
    translation = f"{MODALITIES[result.modality]} made from {description}"
    print(printable(f"{path}, from {scan.source}: {translation}"))
    return volume


def write_error_map(
    volume: Volume,
    path: Path,
    model: Translator,
    options: TranslationOptions,
    calibrations: dict[str, Calibration],
) -> None:
    """Write the error to expect of a volume's translation, and say so.

    The first map of a direction calibrates it, and adds the calibration.
    """
    to = other_modality(volume.modality)
    grid = (options.size, options.spacing_mm)
    if to not in calibrations:
        bar = progress_bar("batch", "calibrating")
        calibrations[to] = calibrate(model, to, *grid, progress=bar)
        print(f"The expected error of {MODALITIES[to]} is {calibrations[to].describe()}.")

    bar = progress_bar("batch", "expected error")
    errors = expected_error(model, volume, calibrations[to], *grid, bar)
    write_volume(errors, path)
    mean = errors.values[errors.values > 0].mean()
    unit = SCALES[to].unit
    print(f"{printable(path)}: the expected error, {mean:.0f} {unit} on average in the head")


def error_map_of(target: Path) -> Path:
    """Where the error to expect of a translation lies: p1.nii.gz has p1_uncertainty.nii.gz."""
    name = stem(target.name)
    return target.with_name(f"{name}{ERROR_MAP_ENDING}{target.name[len(name) :]}")
