"""Whole volumes through a trained translator.

`python -m ctmri_utils translate INPUT OUTPUT --weights FILE`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from ..discovery import left_out_notes, printable
from ..runs.weights import ReferenceTranslator, load_translator
from ..seeds import set_up
from ..units import HU, Scale, mri_scale
from .axial_slices import axial
from .dicom_write import write_series
from .input_checks import check_input
from .itk import ITK, write_itk
from .nifti import NIFTI, write_nifti
from .packages import import_optional
from .scan_files import Scan, check_any, is_volume_file, list_scans
from .volume import MODALITIES, Volume, check_even

OTHER = {"ct": "mri", "mri": "ct"}

# MR has no unit of its own: 12 bits, as scanners store it.
TRANSLATED_MRI = Scale(0.0, 4095.0, "MR unit")

# Pixels per side for networks without a contract.
ASSUMED_SIZE = 128

# Memory for the activations of one batch, on the CPU.
BATCH_BYTES = 2**29

# A generator holds as many images of its largest size at once, per slice: measured, 3.5 to 5.
IMAGES_AT_ONCE = 5
MOST_SLICES_AT_ONCE = 32


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
    """
    if not 0 <= smooth_mm <= 100:
        raise ValueError(f"smoothing by {smooth_mm:g} mm makes no sense: choose 0 to 100")

    to = OTHER[volume.modality]
    size, spacing_mm, assumed = slice_grid(model, to, size, spacing_mm)
    if smooth_mm:
        check_even(volume, "they are smoothed only where even: leave the smoothing out")
    stack = axial(volume, size, spacing_mm)
    # What a network painted may be odd in any way.
    warnings = () if volume.synthetic else check_input(volume, stack)
    if to == "mri":
        scale, scale_of_result = HU, TRANSLATED_MRI
    else:
        scale, scale_of_result = mri_scale(stack.values, stack.head), HU

    head = stack.head_and_rim
    slices = np.where(head, scale.to_network(stack.values), -1).astype(np.float32)
    images = torch.from_numpy(slices)[:, None]  # (Z, 1, size, size)

    at_once = batch_size(model, size)
    batches = [
        model.translate(images[first : first + at_once], to)
        for first in progress(range(0, len(images), at_once))
    ]
    result = torch.cat(batches)[:, 0].numpy()  # (Z, size, size)

    if smooth_mm:
        sd_slices = smooth_mm / stack.spacing_mm[0]
        result = ndimage.gaussian_filter1d(result, sd_slices, axis=0, mode="nearest")
    result = scale_of_result.from_network(np.where(head, result, -1)).astype(np.float32)
    return replace(
        volume,
        values=stack.back_onto(volume, result, scale_of_result.low),
        modality=to,
        notes=(*volume.notes, *stack.notes, *assumed),
        synthetic=True,
        warnings=warnings,
    )


def slice_grid(
    model, to: str, size: int | None, spacing_mm: float | None
) -> tuple[int, float | None, tuple[str, ...]]:
    """Pixels per side and pixel size of the slices that a model translates, see `axial`, and notes.

    Raises:
        ValueError: they contradict the model's contract, or it does not make `to` of a volume.
    """
    contract = getattr(model, "contract", None)
    if contract is None and size is None:
        note = (
            f"the weights do not say which slices they know, and {ASSUMED_SIZE} x {ASSUMED_SIZE} "
            "pixels were assumed: another size moves the result"
        )
        return ASSUMED_SIZE, spacing_mm, (note,)
    if contract is None:
        return size, spacing_mm, ()

    contract.check_slices(size, spacing_mm)
    if to not in contract.makes:
        made = " and ".join(MODALITIES[modality] for modality in contract.makes)
        raise ValueError(
            f"these weights make {made} and no {MODALITIES[to]}: choose other weights for "
            f"{MODALITIES[OTHER[to]]}"
        )
    if contract.ct_unit != HU.unit:
        raise ValueError(
            f"these weights know CT in {contract.ct_unit}s, as in pictures, and volumes are in HU: "
            "train on data in HU"
        )
    return contract.size, spacing_mm or contract.pixel_mm, ()


def batch_size(model, size: int) -> int:
    """How many slices of size x size fit into memory at once, 1 to 32.

    They may take half of what the GPU has free, or 512 MB on the CPU.
    """
    first_weights = next(model.parameters())  # (ngf, 1, 7, 7)
    if first_weights.is_cuda:
        budget = torch.cuda.mem_get_info(first_weights.device)[0] // 2
    else:
        budget = BATCH_BYTES

    # The largest images inside the generator have ngf channels.
    largest_bytes = first_weights.shape[0] * size**2 * first_weights.element_size()
    return int(np.clip(budget // (IMAGES_AT_ONCE * largest_bytes), 1, MOST_SLICES_AT_ONCE))


def translate_scans(
    source: Path,
    output: Path,
    model,
    modality: str | None = None,
    round_trip: bool = False,
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
        **options: of `translate_volume`.

    Raises:
        FileExistsError: an output exists; raised before any work.
        ValueError: scans were left out; raised at the end.
    """
    scans, left_out = list_scans(source).chosen(modality, round_trip)
    check_any(scans, left_out, source)
    targets = _targets(scans, Path(output))
    for target in targets:
        if target.is_file() or (target.is_dir() and any(target.iterdir())):
            raise FileExistsError(
                f"{target} exists already: choose another output, or move it away"
            )

    for note in left_out_notes(left_out):
        print(f"note: {note}")

    bar = partial(import_optional("tqdm.auto").tqdm, unit="batch", disable=None)
    failed = 0
    for k, (scan, target) in enumerate(zip(scans, targets, strict=True), start=1):
        place = f"scan {k} of {len(scans)}"
        try:
            volume = replace(scan.read(modality), synthetic=scan.synthetic)
            result = translate_volume(model, volume, **options, progress=partial(bar, desc=place))
            _write(result, target)
        except (ValueError, PermissionError) as error:
            failed += 1
            print(f"{place} is left out: {error}", file=sys.stderr)
            continue

        about = replace(volume, notes=result.notes, warnings=result.warnings).describe()
        print(f"{printable(target)}: {MODALITIES[result.modality]} made from {about}")
    if failed:
        raise ValueError(f"{failed} of {len(scans)} scans were not translated: see above")


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
) -> None:
    """Translate scans with the weights in a file, see `translate_scans`.

    Args:
        to: "ct" or "mri", what to make; None: as each scan says of itself.
        padding: see `load_reference`.
        round_trip: translate translations too.
    """
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
        size=size,
        spacing_mm=spacing_mm,
        smooth_mm=smooth_mm,
    )
