"""Every scan of a file or folder translated, and written beside the error to expect.

`ctmri translate INPUT OUTPUT --weights FILE`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from ..discovery import ERROR_MAP_ENDING, left_out_notes, printable, stem
from ..runs.weights import ReferenceTranslator, load_translator
from ..seeds import set_up
from .dicom_write import write_series
from .error_maps import Calibration, calibrate, expected_error
from .itk import ITK, write_itk
from .nifti import NIFTI, write_nifti
from .packages import import_optional
from .scan_files import Scan, check_any, check_exists, is_volume_file, list_scans
from .translate import OTHER, SCALES, translate_volume
from .volume import MODALITIES, Volume


def translate_scans(
    source: Path,
    output: Path,
    model,
    modality: str | None = None,
    round_trip: bool = False,
    uncertainty: bool = False,
    **options,
) -> None:
    """Translate every scan of `source` to `output`, and print a line for each.

    A scan that cannot be read is reported and left out.

    Args:
        source: a NIfTI, .mha, .mhd, .nrrd or DICOM file, or a folder of them.
        output: what to make, see the command's help.
        model: as in `translate_volume`.
        modality: of the scans, None to take what they say or look like.
        round_trip: translate translations too.
        uncertainty: also write the error to expect, see `expected_error`.
        **options: of `translate_volume`.

    Raises:
        FileExistsError: an output exists; raised before any work.
        ValueError: two outputs would be one, raised before any work; or scans were left out, raised
            at the end.
    """
    scans, left_out = list_scans(source).chosen(modality, round_trip)
    check_any(scans, left_out, source)
    targets = _targets(scans, Path(output))
    _check_targets([*targets, *map(error_map_of, targets)] if uncertainty else targets)
    for note in left_out_notes(left_out):
        print(f"note: {note}")

    calibration_for = _calibrations(model, options) if uncertainty else None
    failed = 0
    for k, (scan, target) in enumerate(zip(scans, targets, strict=True), start=1):
        place = f"scan {k} of {len(scans)}"
        try:
            volume = replace(scan.read(modality), synthetic=scan.synthetic)
            result = translate_volume(model, volume, **options, progress=_bar(place))
            _write(result, target)

            about = replace(volume, notes=result.notes, warnings=result.warnings).describe()
            made = f"{MODALITIES[result.modality]} made from {about}"
            print(printable(f"{target}, from {scan.source}: {made}"))
            if uncertainty:
                _write_error_map(model, volume, calibration_for, error_map_of(target), options)
        except (ValueError, PermissionError) as error:
            failed += 1
            whose = "" if str(scan.files[0].parent) in str(error) else f"{scan.source}: "
            print(printable(f"{place} is left out: {whose}{error}"), file=sys.stderr)
    if failed:
        raise ValueError(f"{failed} of {len(scans)} scans were not translated: see above")


def _bar(place: str) -> Callable:
    return partial(import_optional("tqdm.auto").tqdm, unit="batch", disable=None, desc=place)


def _calibrations(model, options: dict) -> Callable[[str], Calibration]:
    """A function of what is made, "ct" or "mri"; it calibrates when it is first needed."""

    @cache
    def calibration_for(to: str) -> Calibration:
        grid = options["size"], options["spacing_mm"]
        found = calibrate(model, to, *grid, progress=_bar("calibrating"))
        print(f"The expected error of {MODALITIES[to]} is {found.describe()}.")
        return found

    return calibration_for


def _write_error_map(
    model, volume: Volume, calibration_for: Callable, target: Path, options: dict
) -> None:
    """Write the error to expect of a volume's translation, and say so."""
    calibration = calibration_for(OTHER[volume.modality])
    grid = options["size"], options["spacing_mm"]
    errors = expected_error(model, volume, calibration, *grid, _bar("expected error"))
    _write(errors, target)
    mean = errors.values[errors.values > 0].mean()
    unit = SCALES[errors.modality].unit
    print(f"{printable(target)}: the expected error, {mean:.0f} {unit} on average in the head")


def error_map_of(target: Path) -> Path:
    """Where the error to expect of a translation lies: p1.nii.gz has p1_uncertainty.nii.gz."""
    name = stem(target.name)
    return target.with_name(f"{name}{ERROR_MAP_ENDING}{target.name[len(name) :]}")


def _check_targets(targets: list[Path]) -> None:
    """Raise FileExistsError or ValueError where something would be overwritten."""
    for target, times in Counter(targets).items():
        if times > 1:
            raise ValueError(
                f"{target} would be written {times} times: rename the scans, or translate them to "
                "different folders"
            )
        if target.is_file() or (target.is_dir() and any(target.iterdir())):
            raise FileExistsError(
                f"{target} exists already: choose another output, or move it away"
            )


def _targets(scans: list[Scan], output: Path) -> list[Path]:
    """Where the translation of each scan goes: the output itself, or a place in it."""
    if len(scans) > 1:
        return [output / scan.name for scan in scans]

    [scan] = scans
    if scan.is_file and not is_volume_file(output):
        return [output / scan.name]
    return [output]


def _write(volume: Volume, target: Path) -> None:
    """Write NIfTI, MetaImage, NRRD or DICOM, as the name says."""
    if target.name.lower().endswith(NIFTI):
        write_nifti(volume, target)
    elif target.name.lower().endswith(ITK):
        write_itk(volume, target)
    else:
        write_series(volume, target)


def translate_files(
    source: Path,
    output: Path,
    weights: Path,
    to: str | None,
    size: int | None,
    spacing_mm: float | None,
    smooth_mm: float,
    padding: str = "reflect",
    round_trip: bool = False,
    uncertainty: bool = False,
) -> None:
    """Translate scans with the weights in a file, see `translate_scans`.

    Args:
        to: "ct" or "mri", what to make; None: as each scan says of itself.
        padding: see `load_reference`.
        round_trip: translate translations too.
        uncertainty: also write the error to expect.
    """
    if uncertainty and smooth_mm:
        raise ValueError(
            "the expected error is calibrated without smoothing: leave --smooth-mm or "
            "--uncertainty out"
        )
    # Before the weights are loaded, which takes longer.
    check_exists(Path(source))
    modality = None if to is None else OTHER[to]
    model = load_translator(weights, to, padding).to(set_up(seed=0))
    if isinstance(model, ReferenceTranslator):
        print(
            f"note: {weights} does not say which grey levels its network knows: CT from -1000 to "
            "1000 HU, and MR scaled by its own head, become -1 to 1"
        )
    if model.contract:
        # Before any scan is read.
        model.contract.check_slices(size, spacing_mm)
        print(f"The networks know {model.contract.describe()}.")

    channels = max(model.architecture.ct_channels, model.architecture.mri_channels)
    if channels > 1:
        raise ValueError(
            f"{weights} are for slices of {channels} channels: choose weights for 1, "
            "a slice at a time"
        )
    translate_scans(
        source,
        output,
        model,
        modality,
        round_trip,
        uncertainty,
        size=size,
        spacing_mm=spacing_mm,
        smooth_mm=smooth_mm,
    )
