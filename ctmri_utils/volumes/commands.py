"""The commands prepare, translate, evaluate and translator.

What they run is imported when they run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ..command_line import Number, Switch, UsageError, WholeNumber, default_is, optional

NetworkSize = Annotated[int | None, default_is("as the weights say, or 128", "N")]
NetworkSpacing = Annotated[float | None, default_is("as the weights say, or 224 / SIZE", "X")]
PersonPattern = Annotated[str | None, default_is("by PatientID, folder and name", "REGEX")]


def prepare(
    output: Positional[Path],
    /,
    *,
    ct: Annotated[str | None, default_is("by name, with --pairs", "PATH")] = None,
    mri: Annotated[str | None, default_is("by name, with --pairs", "PATH")] = None,
    pairs: Annotated[Path | None, optional("FOLDER")] = None,
    size: WholeNumber = 128,
    test_share: Number = 0.2,
    seed: WholeNumber = 0,
    person: PersonPattern = None,
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
    from ..machine import progress_bar
    from .prepare import Preparation, prepare_pairs, prepare_slices

    if pairs is None and None in (ct, mri):
        raise UsageError("nothing to prepare: give --ct and --mri, or --pairs")
    options = Preparation(size=size, test_share=test_share, seed=seed, pattern=person)
    bar = progress_bar("scan")
    if pairs is None:
        notes = prepare_slices(output, Path(ct), Path(mri), options, bar)
    else:
        notes = prepare_pairs(output, pairs, ct, mri, options, bar)
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
    size: NetworkSize = None,
    spacing_mm: NetworkSpacing = None,
    smooth_mm: Number = 0,
    padding: Literal["reflect", "replicate"] = "reflect",
    round_trip: Switch = False,
    uncertainty: Switch = False,
) -> None:
    """Translate scans: NIfTI, MetaImage, NRRD or DICOM.

    A translation lies on the grid of its scan.

    Not for clinical use: a translation can invent or remove findings.

    Args:
        input: a .nii, .nii.gz, .mha, .mhd, .nrrd or DICOM file, the folder of a DICOM series, or a
            folder of any of these.
        output: the result: a file with one of these endings, or a folder.
        weights: a run, shipped weights (heads, phantom), a file of weights, or, with --to, a .pth.
        to: the modality to make; a scan's own is read from its file, or guessed from its values.
        size: pixels per side of the network's slices.
        spacing_mm: pixel size of the network's slices.
        smooth_mm: smooth across slices with a Gaussian of this standard deviation, in mm.
        padding: padding in the blocks of a reference network, which its weights do not record.
        round_trip: also translate translations that this package made; by default they are skipped.
        uncertainty: also write a map of the expected error beside each translation, as
            NAME_uncertainty; calibrated on synthetic patients, and ten times slower.
    """
    from .translate import TranslationOptions, translate_files

    options = TranslationOptions(
        to=to,
        size=size,
        spacing_mm=spacing_mm,
        smooth_mm=smooth_mm,
        padding=padding,
        round_trip=round_trip,
        uncertainty=uncertainty,
    )
    translate_files(input, output, weights, options)


def evaluate(
    scans: Positional[Path],
    /,
    *,
    truth: Annotated[Path | None, default_is("from the pairs", "PATH")] = None,
    mask: Annotated[
        Path | None, default_is("from the pairs, else the head in the true CT", "PATH")
    ] = None,
    weights: Annotated[str | None, optional("FILE")] = None,
    output: Annotated[Path | None, default_is("build/evaluations/NAME", "FOLDER")] = None,
    page: Switch = False,
    baselines: Switch = False,
    person: PersonPattern = None,
    size: NetworkSize = None,
    spacing_mm: NetworkSpacing = None,
) -> None:
    """Score synthetic CT against the true CT, as SynthRAD does.

    Metrics: MAE, PSNR, SSIM, MS-SSIM, errors by tissue, bone Dice and HD95, WEPL.

    Prints means with intervals over people; writes scores.csv and metrics.json.

    Args:
        scans: a synthetic CT or a folder of them; with --weights, a folder of pairs as for
            `prepare --pairs`.
        truth: the true CT, or a folder of them; people are matched by names and folders, as in
            `prepare`.
        mask: the region to score, a file or a folder.
        weights: a run, shipped weights (heads, phantom) or a file of weights, with which the MR of
            each pair is translated first.
        output: the folder of scores.csv and of metrics.json, which has the challenge's layout.
        page: also write page.html, which shows the scans, worst first.
        baselines: also score baselines without a network: a constant, the true CT shifted by one
            voxel, and, with --weights, two fits on the other people.
        person: a regular expression, as in `prepare`.
        size: pixels per side of the network's slices.
        spacing_mm: pixel size of the network's slices.
    """
    from .evaluation_files import EvaluationOptions, evaluate_files, evaluate_pairs

    options = EvaluationOptions(output=output, page=page, baselines=baselines)
    if weights is None:
        if truth is None:
            raise UsageError("nothing to compare with: give --truth, or --weights for pairs")
        evaluate_files(scans, truth, mask, person, options)
        return

    if truth or mask or person:
        raise UsageError(
            "--weights takes true CT and masks from the pairs: leave --truth, --mask and --person "
            "out"
        )
    evaluate_pairs(scans, weights, size, spacing_mm, options)


def translator(weights: Positional[str], output: Positional[Path], /) -> None:
    """Write a page that translates the NIfTI files dropped on it.

    It needs a browser and no network, and the files never leave the computer.

    Args:
        weights: a run, shipped weights (heads, phantom), or a file of weights that records its
            slices.
        output: the page to write, an HTML file of about 9 MB.
    """
    from .translation_page import write_translation_page

    write_translation_page(weights, output)
    print(f"Open {output} in a browser. For research and teaching, not for clinical use.")
