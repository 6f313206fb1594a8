"""Viewers as one HTML page that opens anywhere, and `python -m ctmri_utils page RUN`, which makes
it for a training run.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import torch

from ..cyclegan.model import Translator
from ..evaluation.scores import evaluate, translated
from ..machine import build_folder
from ..scans.datasets import UnpairedScans, load_scans
from ..settings import read_settings, settings_for
from ..units import HU
from ..viewers.viewer import MARKS, Viewer, compare, error_explorer, write_page
from .weights import load_translator

# of each modality, where there is no truth
MOST_SLICES = 16
METRICS = ("MAE HU", "bone Dice")


def run_page(run: str | Path, dataset: str | None = None, output: Path | None = None) -> Path:
    """Write a page that compares a run's test slices with their translations, and return its path.

    run: a run's folder, or the name of one in the build folder, such as scans-laptop-2026. Its
    settings.toml, or else its name, says data set, profile and seed; `dataset` replaces the first,
    for a folder of one's own. Raises ValueError or OSError, in one sentence.
    """
    folder = Path(run) if Path(run).is_dir() else build_folder() / "runs" / run
    if (folder / "settings.toml").is_file():
        what, settings = read_settings(folder / "settings.toml", {})
        name, profile, seed = what.values()
    else:
        name, profile, seed = ["", "", *folder.name.rsplit("-", 2)][-3:]
        if not (name and seed.isdigit()):
            raise ValueError(
                f"{folder.name} does not say its data set, profile and seed: name it like "
                "scans-laptop-2026"
            )
        settings = settings_for(profile)
    model = load_translator(folder / "checkpoint.pt")
    scans = load_scans(dataset or name, settings, int(seed))
    title = f"CycleGAN on {name}, profile {profile}, seed {seed}"
    head = (
        f"<h1>{html.escape(title)}</h1><p>Test slices, on which nothing was trained. Research and "
        "teaching software, not for clinical use: a translated scan can remove or invent "
        "findings.</p>"
    )
    sections = [
        viewer.section(f"<h2>{text}</h2>{viewer.montage()}")
        for text, viewer in viewers(model, scans).items()
    ]
    output = Path(output or folder / "page.html")
    write_page(output, title, [head, *sections])
    return output


def viewers(model: Translator, scans: UnpairedScans) -> dict[str, Viewer]:
    """A title and a viewer for each thing that can be compared on this set.

    Translations with their inputs, round trips, and the truth.
    """
    ct, ct_names = few(scans.test.ct), few(scans.test.ct_names)
    mri, mri_names, mri_patients = (
        few(scans.test.mri),
        few(scans.test.mri_names),
        few(scans.test.mri_patients),
    )
    fake_mri, fake_ct = model.translate(ct, "mri"), model.translate(mri, "ct")
    cycled_ct, cycled_mri = model.translate(fake_mri, "ct"), model.translate(fake_ct, "mri")
    patients = {id(mri): mri_patients, id(cycled_mri): mri_patients}

    def values(images):
        """Network -> physical; a translated slice has no patient of its own, so it gets the scale
        of the first MR patient.
        """
        if any(images is one for one in (ct, fake_ct, cycled_ct)):
            return scans.ct_scale.from_network(images[:, 0]).numpy()
        names = patients.get(id(images), [mri_patients[0]] * len(images))
        return torch.stack(
            [
                scans.mri_scales[name].from_network(image[0])
                for name, image in zip(names, images, strict=True)
            ]
        ).numpy()

    units = {"ct": scans.ct_scale.unit, "mri": next(iter(scans.mri_scales.values())).unit}
    spacing, made = scans.spacing_mm, {}
    if scans.test.paired and scans.ct_scale.unit == HU.unit:
        fake_hu = translated(model, scans.ct_scale)(scans.test)
        scores = evaluate({"CycleGAN": lambda split: fake_hu}, scans.test, spacing)
        made["MR to CT against the truth, worst patient first"] = error_explorer(
            scores,
            scans.test.truth.ct_hu,
            fake_hu,
            scans.test.ct_patients,
            method="CycleGAN",
            metrics=METRICS,
            spacing_mm=spacing,
            alt="True CT and the CT made from the MR, patient by patient, with a table of their "
            "errors.",
        )
    # the orientation of grey sets is not known
    marks = MARKS if units["ct"] == HU.unit else ""
    for text, one, other, pair, labels in (
        ("MR and the CT made from it", mri, fake_ct, ("mri", "ct"), mri_names),
        ("CT and the MR made from it", ct, fake_mri, ("ct", "mri"), ct_names),
        ("CT and its round trip by way of MR", ct, cycled_ct, ("ct", "ct"), ct_names),
        ("MR and its round trip by way of CT", mri, cycled_mri, ("mri", "mri"), mri_names),
    ):
        names = ("real", "round trip" if pair[0] == pair[1] else "translated")
        made[text] = compare(
            values(one),
            values(other),
            alt=f"{text}, slice by slice.",
            units=tuple(units[side] for side in pair),
            names=names,
            spacing_mm=spacing,
            labels=labels,
            marks=marks,
        )
    return made


def few(slices: Sequence):
    """At most MOST_SLICES of them, evenly chosen."""
    return slices[:: -(-len(slices) // MOST_SLICES)]


def add_command(commands) -> None:
    """Add `page` to the sub-commands of `python -m ctmri_utils`."""
    parser = commands.add_parser(
        "page", help="write a run's comparisons as one page for those without Python"
    )
    parser.add_argument(
        "name",
        metavar="RUN",
        help="a run's folder, or its name in build/runs, such as scans-laptop-2026",
    )
    parser.add_argument(
        "--dataset", help="the data set to compare on (default: the one in the run's name)"
    )
    parser.add_argument(
        "--output", type=Path, help="the page to write (default: page.html in the run's folder)"
    )
    parser.set_defaults(
        run=lambda options: print(
            f"Open {run_page(options.name, options.dataset, options.output)} in a browser."
        )
    )
