"""Figures and the example folder of lesson 1."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from ..evaluation import mae_hu
from ..scans.phantom import SyntheticPatients
from ..scans.unpaired import UnpairedScans
from ..viewers import figures
from ..viewers.figures import Figure, ImageRow
from ..windows import WINDOWS

# Which slices stand for a data set, as shares of their number: low and high ones of several people.
TRAIN_SHOWN = (0.1, 0.35, 0.6, 0.85)
TEST_SHOWN = (0.1, 0.6)


def at_the_bleed(
    patients: dict[str, tuple[UnpairedScans, torch.Tensor]], bleed: np.ndarray
) -> pd.DataFrame:
    """Mean HU in one place of true and translated CTs, and their mean absolute error in the head.

    Args:
        patients: {row: (the patient, the CT translated from its MR, (1, H, W) in HU)}.
        bleed: the place, (1, H, W) bool.
    """
    table = {}
    for name, (patient, fake_ct) in patients.items():
        truth, fake_hu = patient.test.truth, fake_ct.numpy()
        table[name] = {
            "true CT, HU at the bleed": truth.ct_hu[bleed].mean(),
            "translated CT, HU at the bleed": fake_hu[bleed].mean(),
            "mean error in the head, HU": mae_hu(fake_hu, truth.ct_hu, truth.head),
        }
    return pd.DataFrame(table).T.round(1)


def overview(scans: UnpairedScans) -> Figure:
    """Some training and test slices: CT in the brain and in the bone window, below them MR.

    CT that is not in HU has no such windows and is shown as it is.
    """
    ct = torch.cat([slices_at(scans.train.ct, TRAIN_SHOWN), slices_at(scans.test.ct, TEST_SHOWN)])
    mri = torch.cat(
        [slices_at(scans.train.mri, TRAIN_SHOWN), slices_at(scans.test.mri, TEST_SHOWN)]
    )

    rows = figures.ct_windows("CT", ct, scans.ct_scale)
    rows["MR"] = figures.network_row(mri)

    titles = ["train"] * len(TRAIN_SHOWN) + ["test"] * len(TEST_SHOWN)
    return figures.montage(rows, titles, 1.45)


def slices_at(slices: torch.Tensor, shares: Sequence[float]) -> torch.Tensor:
    return slices[[int(share * len(slices)) for share in shares]]


def hu_histogram(ct_hu: np.ndarray, bands: dict[str, tuple[float, float]]) -> Figure:
    """How often each HU occurs, with the textbooks' ranges of tissues behind it.

    Args:
        ct_hu: the pixels of a head, any shape, in HU.
        bands: {tissue: (lowest HU, highest HU)}.
    """
    figure = Figure(figsize=(6.5, 3), layout="constrained")
    axis = figure.subplots()
    axis.hist(
        np.ravel(ct_hu),
        np.arange(-1000, 1710, 10),
        density=True,
        histtype="step",
        color=figures.COLOURS[0],
        linewidth=1.5,
        label="pixels of the CT head",
    )
    for (name, (low, high)), colour in zip(bands.items(), figures.COLOURS[1:], strict=False):
        axis.axvspan(low, high, color=colour, alpha=0.25, label=name, linewidth=0)

    axis.set(xlabel="HU", ylabel="density", yscale="log", xlim=(-1050, 1750))
    axis.legend(fontsize=8, frameon=False)
    return figure


def restored_slices(true_hu: np.ndarray, restored_hu: dict[str, np.ndarray]) -> Figure:
    """A CT slice beside what 8-bit pictures of it give back, and the errors below.

    Args:
        true_hu: (H, W), in HU.
        restored_hu: {title: (H, W) in HU}.
    """
    images = [true_hu, *restored_hu.values()]
    rows = {
        "bone window": figures.ct_row(images, "bone"),
        "error": figures.difference_row([image - true_hu for image in images], 1500),
    }
    return figures.montage(rows, ["true HU", *restored_hu], 2)


def joint_histogram(
    mri: np.ndarray, ct_hu: np.ndarray, tissues: dict[str, tuple[float, float]]
) -> Figure:
    """How often each MR value meets each HU in the same place, with the tissues marked.

    Args:
        mri: pixels inside heads, (N,), 1 for white matter.
        ct_hu: the same pixels of the CT, (N,), in HU.
        tissues: {name: (MR signal, HU)}.
    """
    limits = ((0, 2.2), (-1000, 1700))
    counts, mri_edges, hu_edges = np.histogram2d(mri, ct_hu, bins=(90, 90), range=limits)

    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axis = figure.subplots()
    mesh = axis.pcolormesh(mri_edges, hu_edges, np.log10(1 + counts.T), cmap="Greys")
    figure.colorbar(mesh, label="log10(1 + pixels)")

    style = {"textcoords": "offset points", "fontsize": 8, "color": figures.COLOURS[1]}
    for name, point in tissues.items():
        # Grey and white matter lie close together.
        shift = (3, -10) if name == "grey matter" else (3, 6)
        axis.plot(*point, "o", color=style["color"], markersize=4)
        axis.annotate(name, point, shift, **style)
    axis.set(xlabel="MR signal, white matter = 1", ylabel="HU")
    return figure


def patients(groups: dict[str, SyntheticPatients]) -> Figure:
    """Synthetic patients, one a column, and below their scans the truth behind them.

    Args:
        groups: {what the patients of a group are called: their slices}.
    """

    def together(field: str) -> np.ndarray:
        return np.concatenate([getattr(group, field) for group in groups.values()])

    rows = {
        "CT, brain": figures.ct_row(together("ct_hu"), "brain"),
        "MR": ImageRow(together("mri"), 0, 130),
        "labels": ImageRow(together("labels"), 0, 19, "tab20"),
        "lesion": ImageRow(together("lesion"), 0, 1),
        "bias field": ImageRow(together("bias_field"), 0.9, 1.1, "PuOr", "factor"),
    }
    titles = [name for name, group in groups.items() for _ in group.parameters]
    return figures.montage(rows, titles, 1.5)


def likeness_curve(
    distances_mm: np.ndarray, lines: dict[str, list[float]], gap_mm: float
) -> Figure:
    """Correlation of two slices of a head over the distance between them.

    Args:
        distances_mm: (N,).
        lines: {modality: (N,) correlations}.
        gap_mm: between training and test slices, marked by a vertical line.
    """
    figure = figures.curves(lines, "distance between slices in mm", "correlation", x=distances_mm)
    axis = figure.axes[0]
    axis.axvline(gap_mm, color="black", linewidth=1)

    label_position = (gap_mm, min(map(min, lines.values())))
    axis.annotate("guard gap", label_position, (4, 0), textcoords="offset points", fontsize=8)
    return figure


def write_example_folder(root: Path, ct_hu: np.ndarray, mri: np.ndarray) -> None:
    """Write a small folder like many on the internet, with four faults in it.

    CT is stored in the brain window as 8-bit PNG, MR as JPEG. The faults: a file that is cut off, a
    blank one, a training slice copied to the test, and a test slice saved again as JPEG among the
    training slices.

    Args:
        root: the folder, which is emptied first.
        ct_hu: (4, H, W), two for training and two for the test, in HU.
        mri: (4, H, W), likewise, 0 to 255.
    """
    shutil.rmtree(root, ignore_errors=True)
    for name in ("trainA", "testA", "trainB", "testB"):
        (root / name).mkdir(parents=True)

    for i, side in enumerate(("train", "train", "test", "test")):
        ct = np.rint(255 * WINDOWS["brain"].apply(ct_hu[i])).astype(np.uint8)
        Image.fromarray(ct).save(root / f"{side}A" / f"ct{i}.png")

        grey = np.rint(mri[i]).clip(0, 255).astype(np.uint8)
        Image.fromarray(grey).save(root / f"{side}B" / f"mri{i}.jpg")

    cut_off = root / "trainA" / "ct0.png"
    cut_off.write_bytes(cut_off.read_bytes()[:900])
    Image.new("L", mri[0].shape).save(root / "testB" / "mri2.jpg")

    shutil.copy(root / "trainA" / "ct1.png", root / "testA" / "copy.png")
    with Image.open(root / "testA" / "ct2.png") as image:
        image.save(root / "trainA" / "again.jpg")
