"""Whole volumes through a trained translator, and `python -m ctmri_utils translate INPUT OUTPUT
--weights ...`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from ..machine import set_up
from ..runs.weights import load_translator
from ..units import HU, Scale, mri_scale
from .dicom import find_series, is_dicom, read_series, write_series
from .volume import MODALITIES, NIFTI, Volume, axial, needs, read_nifti, write_nifti

OTHER = {"ct": "mri", "mri": "ct"}
# MR has no unit of its own: 12 bits, as scanners store it
TRANSLATED_MRI = Scale(0.0, 4095.0, "MR unit")
# of memory for the activations of one batch, on the CPU
BATCH_BYTES = 2**29
# of the generator's largest, per slice: measured, 3.5 to 5
IMAGES_AT_ONCE = 5


def translate_volume(
    model,
    volume: Volume,
    size: int = 128,
    spacing_mm: float | None = None,
    smooth_mm: float = 0.0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Volume:
    """A CT made from an MR volume, or an MR from a CT, on the very grid of the volume.

    model: with `translate(images, to)`, a CycleGAN for example. size, spacing_mm: see `axial`. The
    head is found in the volume itself; what lies outside is background before and after the
    network. CT comes back in HU, -1000 to 1000, MR from 0 to 4095. smooth_mm: SD of a Gaussian
    across the slices of the result. `progress` wraps the loop over batches. Raises ValueError if
    there is no head or for more smoothing than 100 mm.
    """
    if not 0 <= smooth_mm <= 100:
        raise ValueError(f"smoothing by {smooth_mm:g} mm makes no sense: choose 0 to 100")
    stack, to = axial(volume, size, spacing_mm), OTHER[volume.modality]
    scale, made = (HU, TRANSLATED_MRI) if to == "mri" else (mri_scale(stack.values, stack.head), HU)
    # the skin's partial volume, as in data/scans
    rim = ndimage.binary_dilation(stack.head, np.ones((1, 3, 3)))
    images = torch.from_numpy(np.where(rim, scale.to_network(stack.values), -1).astype(np.float32))[
        :, None
    ]
    batch = batch_size(model, size)
    done = [
        model.translate(images[first : first + batch], to)
        for first in progress(range(0, len(images), batch))
    ]
    # (Z, size, size) in [-1, 1]
    result = torch.cat(done)[:, 0].numpy()
    if smooth_mm:
        result = ndimage.gaussian_filter1d(
            result, smooth_mm / stack.spacing_mm[0], axis=0, mode="nearest"
        )
    result = made.from_network(np.where(rim, result, -1)).astype(np.float32)
    return replace(
        volume,
        values=stack.back_onto(volume, result, made.low),
        modality=to,
        notes=(*volume.notes, *stack.notes),
    )


def batch_size(model, size: int) -> int:
    """How many slices of size x size fit into memory at once, 1 to 32.

    Half of what the GPU has free, on the CPU 512 MB.
    """
    # (ngf, 1, 7, 7): the largest images have ngf channels
    first = next(model.parameters())
    budget = torch.cuda.mem_get_info(first.device)[0] // 2 if first.is_cuda else BATCH_BYTES
    return int(
        np.clip(budget // (IMAGES_AT_ONCE * first.shape[0] * size**2 * first.element_size()), 1, 32)
    )


@dataclass(frozen=True)
class Scan:
    """One volume on disk: a NIfTI file, or the files of a DICOM series.

    name: what its translation may be called.
    """

    files: tuple[Path, ...]
    name: str

    @property
    def nifti(self) -> bool:
        return self.name.lower().endswith(NIFTI)

    def read(self, modality: str | None = None) -> Volume:
        """The volume. ValueError as `read_nifti` and `read_series`, or if a DICOM series is not of
        this modality.
        """
        if self.nifti:
            return read_nifti(self.files[0], modality)
        volume = read_series(self.files)
        if modality not in (None, volume.modality):
            raise ValueError(
                f"{self.files[0].parent}: it is a series of {MODALITIES[volume.modality]}, not of "
                f"{MODALITIES[modality]}"
            )
        return volume


def find_scans(source: Path) -> list[Scan]:
    """Every NIfTI file and every CT or MR series in a file or folder, hidden ones left out.

    A NIfTI file keeps its name. A series is series-001 and so on, because folders are often called
    by the patient's name. Raises FileNotFoundError if there is nothing to read.
    """
    source = Path(source)
    folder = source if source.is_dir() else source.parent
    if source.is_dir():
        files = [
            path
            for path in sorted(source.rglob("*"))
            if not any(part.startswith(".") for part in path.relative_to(source).parts)
        ]
    elif source.is_file():
        files = [source]
    else:
        raise FileNotFoundError(
            f"{source} does not exist: give a NIfTI file, a DICOM file, or a folder of them"
        )
    nifti = [path for path in files if path.is_file() and path.name.lower().endswith(NIFTI)]
    series = find_series([path for path in files if path not in set(nifti) and is_dicom(path)])
    scans = [Scan((path,), path.relative_to(folder).as_posix()) for path in nifti]
    scans += [Scan(tuple(group), f"series-{k + 1:03d}") for k, group in enumerate(series)]
    if not scans:
        raise FileNotFoundError(
            f"{source} holds no scan (looked for .nii, .nii.gz, and CT or MR images with DICOM's "
            "mark): look elsewhere"
        )
    return scans


def translate_scans(
    source: Path, output: Path, model, modality: str | None = None, **options
) -> None:
    """Translate every scan of `source` to `output`, a line for each on standard output.

    See the command's help.

    A scan that cannot be read is said and left out, and at the end ValueError is raised for them.
    Raises FileExistsError before any work if an output exists.
    """
    scans, output = find_scans(source), Path(output)
    targets = [output if len(scans) == 1 else output / scan.name for scan in scans]
    if len(scans) == 1 and scans[0].nifti and not output.name.lower().endswith(NIFTI):
        targets = [output / scans[0].name]
    for target in targets:
        if target.is_file() or (target.is_dir() and any(target.iterdir())):
            raise FileExistsError(f"{target} exists already: delete it, or choose another output")
    bar, failed = needs("tqdm.auto").tqdm, 0
    for k, (scan, target) in enumerate(zip(scans, targets, strict=True), 1):
        try:
            volume = scan.read(modality)
            result = translate_volume(
                model,
                volume,
                **options,
                progress=lambda steps, k=k: bar(
                    steps, desc=f"scan {k} of {len(scans)}", unit="batch", disable=None
                ),
            )
            (write_nifti if target.name.lower().endswith(NIFTI) else write_series)(result, target)
        except (ValueError, PermissionError) as error:
            failed += 1
            print(f"scan {k} of {len(scans)} is left out: {error}", file=sys.stderr)
            continue
        print(
            f"{target}: {MODALITIES[result.modality]} made from "
            f"{replace(volume, notes=result.notes).describe()}"
        )
    if failed:
        raise ValueError(f"{failed} of {len(scans)} scans were not translated: see above")


def command(options) -> None:
    """`python -m ctmri_utils translate`."""
    modality = options.to and OTHER[options.to]
    model = load_translator(options.weights).to(set_up(seed=0))
    if channels := {model.architecture.ct_channels, model.architecture.mri_channels} - {1}:
        raise ValueError(
            f"{options.weights} are for slices of {max(channels)} channels: choose weights for 1, "
            "a slice at a time"
        )
    translate_scans(
        options.input,
        options.output,
        model,
        modality,
        size=options.size,
        spacing_mm=options.spacing_mm,
        smooth_mm=options.smooth_mm,
    )


def add_command(commands) -> None:
    """Add `translate` to the sub-commands of `python -m ctmri_utils`."""
    parser = commands.add_parser(
        "translate",
        help="translate NIfTI files and DICOM series",
        description="Translate scans, each on its own grid. Not for clinical use: findings can be "
        "made up.",
    )
    parser.add_argument(
        "input",
        metavar="INPUT",
        type=Path,
        help="a NIfTI file, a DICOM file, the folder of a series, or a folder of many",
    )
    parser.add_argument(
        "output",
        metavar="OUTPUT",
        type=Path,
        help="what to make: a .nii or .nii.gz file, or a folder",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        required=True,
        help="a checkpoint, or weights such as data/weights/scans.safetensors",
    )
    parser.add_argument(
        "--to",
        choices=OTHER,
        help="what to make (default: the other of what the file says, or what its values look "
        "like)",
    )
    parser.add_argument(
        "--size",
        type=int,
        default=128,
        help="pixels per side of the network's slices, as in its training (default: 128)",
    )
    parser.add_argument(
        "--spacing-mm",
        type=float,
        metavar="MM",
        help="their pixel size (default: 224 / SIZE, as in the lessons)",
    )
    parser.add_argument(
        "--smooth-mm",
        type=float,
        default=0.0,
        metavar="MM",
        help="smooth across slices, SD of a Gaussian (default: 0)",
    )
    parser.set_defaults(run=command)
