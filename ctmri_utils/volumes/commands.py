"""The commands prepare, translate, evaluate and page; what they run is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ..command_line import Number, Switch, WholeNumber, default_is


def prepare(
    output: Positional[Path],
    /,
    *,
    ct: Annotated[str | None, default_is("none; with --pairs, by name", "PATH")] = None,
    mri: Annotated[str | None, default_is("none; with --pairs, by name", "PATH")] = None,
    pairs: Annotated[Path | None, default_is("none", "FOLDER")] = None,
    size: WholeNumber = 128,
    test_share: Number = 0.2,
    seed: WholeNumber = 0,
    person: Annotated[str | None, default_is("by PatientID, folder and name", "REGEX")] = None,
) -> None:
    """Make a folder of training slices from volumes, split by person.

    Give --ct and --mri for unpaired scans, or --pairs for registered CT and MR.

    Args:
        output: the folder to write.
        ct: the CT volumes: DICOM, BIDS, or one NIfTI file or folder per person; with --pairs, a
            pattern that their paths match, such as "*_reg_ct.nii.gz".
        mri: the MR volumes, in the same way; a name in both is the same person.
        pairs: a folder with each person's registered ct and mr, and optionally a mask, as in
            SynthRAD; also p1_ct and p1_mr, or p1_0000 and p1_0001.
        size: pixels per side of the slices, which span 224 mm.
        test_share: share of the people kept for testing.
        seed: seed of the random split.
        person: a regular expression; whatever it (or its first group) matches in a scan's path
            identifies the person, such as "patient[0-9]+".
    """
    from functools import partial

    from .packages import import_optional
    from .prepare import prepare_pairs, prepare_slices

    if pairs is None and None in (ct, mri):
        raise ValueError("nothing to prepare: give --ct and --mri, or --pairs")
    bar = partial(import_optional("tqdm.auto").tqdm, unit="scan", disable=None)
    options = (size, test_share, seed, bar, person)
    if pairs is None:
        notes = prepare_slices(output, Path(ct), Path(mri), *options)
    else:
        notes = prepare_pairs(output, pairs, ct, mri, *options)
    for note in notes:
        print(f"note: {note}")
    print(f'{output} is ready: DATASET = "{output}" in any lesson.')


def translate(
    input: Positional[Path],
    output: Positional[Path],
    /,
    *,
    weights: Annotated[Path, arg(metavar="FILE")],
    to: Annotated[Literal["ct", "mri"] | None, default_is("MR for a CT, CT for an MR")] = None,
    size: Annotated[int | None, default_is("as the weights say, or 128", "N")] = None,
    spacing_mm: Annotated[
        float | None, default_is("as the weights say, or 224 / SIZE", "X")
    ] = None,
    smooth_mm: Number = 0.0,
    padding: Literal["reflect", "replicate"] = "reflect",
    round_trip: Switch = False,
    uncertainty: Switch = False,
) -> None:
    """Translate NIfTI, MetaImage and NRRD files and DICOM series, each on its own grid.

    Not for clinical use: a translation can invent or remove findings.

    Args:
        input: a .nii, .nii.gz, .mha, .mhd, .nrrd or DICOM file, the folder of a DICOM series, or a
            folder of any of these.
        output: the result: a file with one of these endings, or a folder.
        weights: a run, weights such as data/weights/heads.safetensors, or, with --to, a .pth.
        to: the modality to make; a scan's own is read from its file, or guessed from its values.
        size: pixels per side of the network's slices, for weights that do not record it.
        spacing_mm: pixel size of the network's slices, for weights that do not record it.
        smooth_mm: smooth across slices with a Gaussian of this standard deviation, in mm.
        padding: padding in the blocks of a reference network, which its weights do not record.
        round_trip: also translate translations that this package made; by default they are skipped.
        uncertainty: also write a map of the expected error beside each translation, as
            NAME_uncertainty; calibrated on synthetic patients, and ten times slower.
    """
    from .translation_files import translate_files

    grid = size, spacing_mm, smooth_mm
    translate_files(input, output, weights, to, *grid, padding, round_trip, uncertainty)


def evaluate(
    source: Annotated[Positional[Path], arg(metavar="SCT_OR_DATA")],
    /,
    *,
    truth: Annotated[Path | None, default_is("from the pairs", "PATH")] = None,
    mask: Annotated[
        Path | None, default_is("from the pairs, else the head in the true CT", "PATH")
    ] = None,
    weights: Annotated[str | None, default_is("none", "FILE")] = None,
    output: Annotated[Path | None, default_is("build/evaluations/NAME", "FOLDER")] = None,
    page: Switch = False,
    baselines: Switch = False,
    person: Annotated[str | None, default_is("by PatientID, folder and name", "REGEX")] = None,
    size: Annotated[int | None, default_is("as the weights say, or 128", "N")] = None,
    spacing_mm: Annotated[
        float | None, default_is("as the weights say, or 224 / SIZE", "X")
    ] = None,
) -> None:
    """Score synthetic CT volumes against the true ones, person by person, as SynthRAD does.

    Computes MAE, PSNR, SSIM, MS-SSIM, errors by tissue, Dice and HD95 of bone, and water-equivalent
    path length. Prints them with intervals over people, and writes scores.csv, and metrics.json in
    the layout of the challenge.

    Args:
        source: a synthetic CT or a folder of them; with --weights, a folder of pairs as for
            `prepare --pairs`.
        truth: the true CT, or a folder of them; people are matched by names and folders, as in
            `prepare`.
        mask: the region to score, a file or a folder.
        weights: a run or weights, with which the MR of each pair is translated first.
        output: the folder of the results.
        page: also write page.html, which shows the scans, worst first.
        baselines: also score baselines without a network: a constant, the true CT shifted by one
            voxel, and, with --weights, two fits on the other people.
        person: a regular expression, as in `prepare`.
        size: pixels per side of the network's slices, for weights that do not record it.
        spacing_mm: pixel size of the network's slices, for weights that do not record it.
    """
    from .evaluation_files import evaluate_files

    evaluate_files(source, truth, mask, weights, output, page, baselines, person, size, spacing_mm)


def page(
    run: Annotated[Positional[str], arg(metavar="RUN_OR_PAGE")],
    /,
    *,
    dataset: Annotated[str | None, default_is("the run's", "NAME")] = None,
    output: Annotated[Path | None, default_is("page.html in the run's folder", "FILE")] = None,
    translate: Annotated[Path | None, default_is("none", "FILE")] = None,
) -> None:
    """Write an HTML page, readable without Python: a run's translations, or a translator.

    With --translate, the page translates NIfTI files that are dropped on it, in the browser; they
    never leave the computer.

    Args:
        run: a run's folder, or its name in build/runs, such as scans-laptop-2026; with --translate,
            the page to write.
        dataset: the data set to compare on.
        output: the page to write.
        translate: a run or weights that record their slices, such as
            data/weights/heads.safetensors.
    """
    if translate is None:
        from ..runs.page import run_page

        print(f"Open {run_page(run, dataset, output)} in a browser.")
        return

    from .translation_page import write_translation_page

    if dataset or output:
        raise ValueError(
            "--translate takes neither --dataset nor --output: give only the page to write"
        )
    write_translation_page(translate, Path(run))
    print(f"Open {run} in a browser. For research and teaching, not for clinical use.")
