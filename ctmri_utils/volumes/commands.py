"""The commands prepare, translate, evaluate and page; what they run is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ..command_line import default_is


def prepare(
    output: Positional[Path],
    /,
    *,
    ct: Annotated[str | None, default_is("none, or by name in pairs")] = None,
    mri: Annotated[str | None, default_is("none, or by name in pairs")] = None,
    pairs: Annotated[Path | None, default_is("none")] = None,
    size: int = 128,
    test_share: float = 0.2,
    seed: int = 0,
    person: Annotated[str | None, default_is("by PatientID, folder and name")] = None,
) -> None:
    """Make a folder of slices to train on from volumes, split by person.

    Give --ct and --mri for scans of any people, or --pairs for registered CT and MR.

    Args:
        output: the folder to make.
        ct: where the CT volumes lie: DICOM, BIDS, or a NIfTI file or folder a person; with --pairs,
            a pattern of their paths, such as "*_reg_ct.nii.gz".
        mri: where the MR volumes lie, likewise; a name in both is the same person.
        pairs: a folder in which each person's ct, mr and perhaps mask lie upon each other, as in
            SynthRAD; also p1_ct and p1_mr, or p1_0000 and p1_0001.
        size: pixels per side of the slices, over 224 mm.
        test_share: share of the people kept for the test.
        seed: of the draw that splits them.
        person: a regular expression; what it, or its first group, matches in a scan's path is the
            person, such as "patient[0-9]+".
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
    weights: Path,
    to: Annotated[Literal["ct", "mri"] | None, default_is("the other of what a scan is")] = None,
    size: Annotated[int | None, default_is("as the weights say, or 128")] = None,
    spacing_mm: Annotated[float | None, default_is("as the weights say, or 224 / SIZE")] = None,
    smooth_mm: float = 0.0,
    padding: Literal["reflect", "replicate"] = "reflect",
    round_trip: bool = False,
    uncertainty: bool = False,
) -> None:
    """Translate NIfTI, MetaImage and NRRD files and DICOM series, each on its own grid.

    Not for clinical use: findings can be made up.

    Args:
        input: a .nii, .nii.gz, .mha, .mhd, .nrrd or DICOM file, the folder of a series, or a folder
            of many.
        output: what to make: a file with one of these endings, or a folder.
        weights: a run, weights such as data/weights/heads.safetensors, or with --to a .pth.
        to: what to make; what a scan is, its file says, or its values look like.
        size: pixels per side of the network's slices, for weights that do not say it.
        spacing_mm: their pixel size, likewise.
        smooth_mm: smooth across slices, SD of a Gaussian.
        padding: of a reference network's blocks, which its weights do not tell.
        round_trip: translate this package's own translations too; else they are left out.
        uncertainty: also write the error to expect beside each translation, as
            NAME_uncertainty; calibrated on synthetic patients, it takes ten times as long.
    """
    from .translation_files import translate_files

    grid = size, spacing_mm, smooth_mm
    translate_files(input, output, weights, to, *grid, padding, round_trip, uncertainty)


def evaluate(
    source: Annotated[Positional[Path], arg(metavar="SCT_OR_DATA")],
    /,
    *,
    truth: Annotated[Path | None, default_is("in the pairs")] = None,
    mask: Annotated[Path | None, default_is("in the pairs, else the head in the true CT")] = None,
    weights: Annotated[str | None, default_is("none")] = None,
    output: Annotated[Path | None, default_is("build/evaluations/NAME")] = None,
    page: bool = False,
    baselines: bool = False,
    person: Annotated[str | None, default_is("by PatientID, folder and name")] = None,
    size: Annotated[int | None, default_is("as the weights say, or 128")] = None,
    spacing_mm: Annotated[float | None, default_is("as the weights say, or 224 / SIZE")] = None,
) -> None:
    """Score synthetic CT volumes against the true ones, person by person, as SynthRAD does.

    MAE, PSNR, SSIM, MS-SSIM, errors by tissue, Dice and HD95 of bone, water-equivalent path length:
    on the screen with intervals over people, in scores.csv, and in metrics.json in the challenge's
    layout.

    Args:
        source: a synthetic CT or a folder of them; with --weights, a folder of pairs as `prepare
            --pairs` takes it.
        truth: the true CT or a folder; who is who, names and folders say, as in `prepare`.
        mask: where to score, a file or a folder.
        weights: a run or weights; the MR of each pair is translated first.
        output: folder of the results.
        page: also write page.html, to look at the scans, the worst first.
        baselines: also score what needs no network: a constant, the true CT one voxel off, and with
            --weights two fits on the other people.
        person: a regular expression, as in `prepare`.
        size: pixels per side of the network's slices, for weights that do not say it.
        spacing_mm: their pixel size, likewise.
    """
    from .evaluation_files import evaluate_files

    evaluate_files(source, truth, mask, weights, output, page, baselines, person, size, spacing_mm)


def page(
    run: Annotated[Positional[str], arg(metavar="RUN_OR_PAGE")],
    /,
    *,
    dataset: Annotated[str | None, default_is("the one in the run's name")] = None,
    output: Annotated[Path | None, default_is("page.html in the run's folder")] = None,
    translate: Annotated[Path | None, default_is("none")] = None,
) -> None:
    """Write a page for those without Python: a run's comparisons, or one that translates scans.

    With --translate, the page translates the NIfTI files that its reader drops, in the browser;
    they do not leave the computer.

    Args:
        run: a run's folder, or its name in build/runs, such as scans-laptop-2026; with --translate,
            the page to write.
        dataset: the data set to compare on.
        output: the page to write.
        translate: a run or weights with a contract, such as data/weights/heads.safetensors.
    """
    if translate is None:
        from ..runs.page import run_page

        print(f"Open {run_page(run, dataset, output)} in a browser.")
        return

    from .translation_page import write_translation_page

    if dataset or output:
        raise ValueError(
            "a page that translates has no data set: say only --translate and the page"
        )
    write_translation_page(translate, Path(run))
    print(f"Open {run} in a browser. For research and teaching, not for clinical use.")
