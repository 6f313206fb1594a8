"""Volumes through a trained translator: one in memory, or every scan of a file or folder.

`ctmri translate INPUT OUTPUT --weights FILE`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..discovery import ERROR_MAP_ENDING, printable, stem
from ..runs.weights import ReferenceTranslator, load_translator
from ..seeds import set_up
from .error_maps import Calibration, calibrate, expected_error
from .input_checks import check_input
from .network_slices import SCALES, check_one_channel, network_slices, translate_slices
from .packages import progress_bar
from .scan_files import Scan, check_exists, is_volume_file, list_scans, write_volume
from .volume import MODALITIES, OTHER, Volume, check_even, check_free


def translate_volume(
    model,
    volume: Volume,
    size: int | None = None,
    spacing_mm: float | None = None,
    smooth_mm: float = 0.0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Volume:
    """A CT made from an MR volume, or an MR from a CT, on the very grid of the volume.

    The head is found in the volume itself; what lies outside is background before and after the
    network.

    Args:
        model: anything with `translate(images, to)`, a CycleGAN for example. Its `contract`, if it
            has one, says which slices it knows.
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
        ValueError: there is no head, it is a scan that the networks cannot know, a size that
            contradicts the contract, or the smoothing is none from 0 to 100 mm, or across slices
            that lie unevenly.

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
    # What a network painted may be odd in any way.
    warnings = () if volume.synthetic else check_input(volume, stack)

    to = OTHER[volume.modality]
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
        to: "ct" or "mri", what to make; None: as each scan says of itself, or looks like.
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


def translate_files(source: Path, output: Path, weights: Path, options: TranslationOptions) -> None:
    """Translate scans with the weights in a file, see `translate_scans`."""
    if options.uncertainty and options.smooth_mm:
        raise ValueError(
            "the expected error is calibrated without smoothing: leave --smooth-mm or "
            "--uncertainty out"
        )
    # Before the weights are loaded, which takes longer.
    check_exists(Path(source))
    model = load_translator(weights, options.to, options.padding).to(set_up(seed=0))
    if isinstance(model, ReferenceTranslator):
        print(
            f"note: {weights} does not say which grey levels its network knows: CT from -1000 to "
            "1000 HU, and MR scaled by its own head, become -1 to 1"
        )
    if model.contract:
        # Before any scan is read.
        model.contract.check_slices(options.size, options.spacing_mm)
        print(f"The networks know {model.contract.describe()}.")
    check_one_channel(model, weights)
    translate_scans(source, output, model, options)


def translate_scans(source: Path, output: Path, model, options: TranslationOptions) -> None:
    """Translate every scan of `source` to `output`, and print a line for each.

    A scan that cannot be read is reported and left out.

    Args:
        source: a NIfTI, .mha, .mhd, .nrrd or DICOM file, or a folder of them.
        output: what to make, see the command's help.
        model: as in `translate_volume`.
        options: see `TranslationOptions`.

    Raises:
        FileExistsError: an output exists; raised before any work.
        ValueError: scans were left out; raised at the end.
    """
    modality = None if options.to is None else OTHER[options.to]
    scans, notes = list_scans(source).chosen(modality, options.round_trip)
    targets = _targets(scans, Path(output))
    for target in targets:
        check_free(target)
        if options.uncertainty:
            check_free(error_map_of(target))
    for note in notes:
        print(f"note: {note}")

    # Calibrated when it is first needed, once for each direction.
    calibration_for = cache(partial(_calibrated, model, options))
    failed = 0
    for k, (scan, target) in enumerate(zip(scans, targets, strict=True), start=1):
        place = f"scan {k} of {len(scans)}"
        try:
            volume = replace(scan.read(modality), synthetic=scan.synthetic)
            grid = options.size, options.spacing_mm
            bar = progress_bar("batch", place)
            result = translate_volume(model, volume, *grid, options.smooth_mm, bar)
            write_volume(result, target)

            about = replace(volume, notes=result.notes, warnings=result.warnings).describe()
            made = f"{MODALITIES[result.modality]} made from {about}"
            print(printable(f"{target}, from {scan.source}: {made}"))
            if options.uncertainty:
                calibration = calibration_for(result.modality)
                _write_error_map(model, volume, calibration, error_map_of(target), options)
        except (ValueError, PermissionError) as error:
            failed += 1
            whose = "" if str(scan.files[0].parent) in str(error) else f"{scan.source}: "
            print(printable(f"{place} is left out: {whose}{error}"), file=sys.stderr)
    if failed:
        raise ValueError(f"{failed} of {len(scans)} scans were not translated: see above")


def _calibrated(model, options: TranslationOptions, to: str) -> Calibration:
    """The calibration of what is made, "ct" or "mri", and a line on the screen."""
    grid = options.size, options.spacing_mm
    found = calibrate(model, to, *grid, progress=progress_bar("batch", "calibrating"))
    print(f"The expected error of {MODALITIES[to]} is {found.describe()}.")
    return found


def _write_error_map(
    model, volume: Volume, calibration: Calibration, target: Path, options: TranslationOptions
) -> None:
    """Write the error to expect of a volume's translation, and say so."""
    bar = progress_bar("batch", "expected error")
    errors = expected_error(model, volume, calibration, options.size, options.spacing_mm, bar)
    write_volume(errors, target)
    mean = errors.values[errors.values > 0].mean()
    unit = SCALES[errors.modality].unit
    print(f"{printable(target)}: the expected error, {mean:.0f} {unit} on average in the head")


def error_map_of(target: Path) -> Path:
    """Where the error to expect of a translation lies: p1.nii.gz has p1_uncertainty.nii.gz."""
    name = stem(target.name)
    return target.with_name(f"{name}{ERROR_MAP_ENDING}{target.name[len(name) :]}")


def _targets(scans: list[Scan], output: Path) -> list[Path]:
    """Where the translation of each scan goes: the output itself, or a place in it."""
    if len(scans) > 1:
        return [output / scan.name for scan in scans]

    [scan] = scans
    if scan.is_file and not is_volume_file(output):
        return [output / scan.name]
    return [output]
