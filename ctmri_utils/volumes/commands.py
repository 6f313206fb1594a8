"""The commands prepare and translate; what they run is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from ..command_line import default_is


def prepare(
    output: Positional[Path],
    /,
    *,
    ct: Path,
    mri: Path,
    size: int = 128,
    test_share: float = 0.2,
    seed: int = 0,
    person: Annotated[str | None, default_is("by PatientID, folder and name")] = None,
) -> None:
    """Make a folder of slices to train on from NIfTI files and DICOM series, split by person.

    Args:
        output: the folder to make.
        ct: where the CT volumes lie: DICOM, BIDS, or a NIfTI file or folder a person.
        mri: where the MR volumes lie, likewise; a name in both is the same person.
        size: pixels per side of the slices, over 224 mm.
        test_share: share of the people kept for the test.
        seed: of the draw that splits them.
        person: a regular expression; what it, or its first group, matches in a scan's path is the
            person, such as "patient[0-9]+".
    """
    from functools import partial

    from .packages import import_optional
    from .prepare import prepare_slices

    bar = partial(import_optional("tqdm.auto").tqdm, unit="scan", disable=None)
    for note in prepare_slices(
        output, ct, mri, size, test_share, seed, progress=bar, person=person
    ):
        print(f"note: {note}")
    print(f'{output} is ready: DATASET = "{output}" in any lesson.')


def translate(
    input: Positional[Path],
    output: Positional[Path],
    /,
    *,
    weights: Path,
    to: Annotated[Literal["ct", "mri"] | None, default_is("the other of what a scan is")] = None,
    size: int = 128,
    spacing_mm: Annotated[float | None, default_is("224 / SIZE, as in the lessons")] = None,
    smooth_mm: float = 0.0,
    padding: Literal["reflect", "replicate"] = "reflect",
    round_trip: bool = False,
) -> None:
    """Translate NIfTI files and DICOM series, each on its own grid.

    Not for clinical use: findings can be made up.

    Args:
        input: a NIfTI file, a DICOM file, the folder of a series, or a folder of many.
        output: what to make: a .nii or .nii.gz file, or a folder.
        weights: a run, weights such as data/weights/scans.safetensors, or with --to a .pth.
        to: what to make; what a scan is, its file says, or its values look like.
        size: pixels per side of the network's slices, as in its training.
        spacing_mm: their pixel size.
        smooth_mm: smooth across slices, SD of a Gaussian.
        padding: of a reference network's blocks, which its weights do not tell.
        round_trip: translate this package's own translations too; else they are left out.
    """
    from .translate import translate_files

    translate_files(input, output, weights, to, size, spacing_mm, smooth_mm, padding, round_trip)
