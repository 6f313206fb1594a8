"""Numbers that a change of the code's structure must not change.

Trainings, metrics, prepared slices, volumes, weights and ONNX.

`python tests/golden/digests.py` compares with digests.json, bit by bit, and names what differs;
`--write` makes the file anew. The test beside it compares with a tolerance, because another
processor adds in another order.
"""

import hashlib
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.cyclegan.training import fit
from ctmri_utils.evaluation.distances import bone_hd95_mm, wepl_error_mm
from ctmri_utils.evaluation.distributions import fid, kid
from ctmri_utils.evaluation.faithfulness import (
    bias_correlation,
    checkerboard_db,
    honesty_ratio,
    mask_dice,
    shift_px,
    slice_jitter,
)
from ctmri_utils.evaluation.features import SMALL, features
from ctmri_utils.evaluation.lesions import detects_lesion, lesion_contrast_recovery
from ctmri_utils.evaluation.metrics import (
    SYNTHRAD2023_RANGE,
    SYNTHRAD2025_RANGE,
    bias_hu,
    bone_dice,
    mae_hu,
    ms_ssim,
    nmae,
    psnr_db,
    rank_correlation,
    ssim,
    tissue_bias_hu,
    tissue_mae_hu,
)
from ctmri_utils.machine import data_folder
from ctmri_utils.runs.export import export_onnx
from ctmri_utils.runs.weights import load_translator, save_weights
from ctmri_utils.scans.datasets import phantom_scans
from ctmri_utils.scans.folders import folder_scans
from ctmri_utils.scans.phantom import synthetic_patients
from ctmri_utils.settings import Architecture, Objective, Training
from ctmri_utils.volumes.dicom import read_series
from ctmri_utils.volumes.dicom_write import write_series
from ctmri_utils.volumes.nifti import read_nifti, write_nifti
from ctmri_utils.volumes.prepare import Preparation, prepare_slices
from ctmri_utils.volumes.translate import translate_volume
from ctmri_utils.volumes.volume import Volume

FILE = Path(__file__).with_name("digests.json")
STEPS = 30
SMALL_NETWORKS = {"ngf": 4, "ndf": 4, "n_blocks": 2, "n_layers": 2}
ALONE = {"cycle_ct": 0.0, "cycle_mri": 0.0, "identity": 0.0}

# name -> (architecture, objective, training), each over the defaults.
TRAININGS = {
    "lsgan": ({}, {}, {}),
    "vanilla": ({}, {"gan_mode": "vanilla"}, {"lr_policy": "cosine"}),
    "hinge": ({"spectral": True}, {"gan_mode": "hinge"}, {"lr_policy": "step"}),
    "wgangp": ({}, {"gan_mode": "wgangp"}, {"clip_norm": 1.0}),
    "gradient": ({}, {"gradient": 1.0}, {"sampling": "position"}),
    "mind": ({"ct_map": "piecewise"}, {"mind": 5.0}, {"rotation_deg": 5.0, "jitter": 0.1}),
    "correlation": ({}, {"correlation": 1.0}, {"crop_size": 24, "batch_size": 2}),
    "mask": ({}, {"mask": 10.0}, {"ema": 0.0}),
    "CUT": ({}, ALONE | {"nce": 0.5, "nce_identity": 0.5, "pool_size": 0}, {}),
    "translation noise": (
        {"upsampling": "resize"},
        {"translation_noise": 0.05},
        {"lr_policy": "plateau"},
    ),
    "supervised": ({}, ALONE | {"supervised": 100.0}, {"sampling": "paired"}),
    "regression": (
        {},
        ALONE | {"adversarial": 0.0, "supervised": 100.0},
        {"sampling": "paired", "batch_size": 2},
    ),
    "two windows": ({"ct_map": "two_windows"}, {"identity": 0.0}, {}),
    "batch norm, dropout": ({"norm": "batch", "dropout": True}, {}, {"batch_size": 2}),
    "U-Net, pixel": (
        {"generator": "unet_32", "discriminator": "pixel"},
        {"pool_size": 3},
        {"load_size": 36, "crop_size": 32},
    ),
}


def digest(values) -> dict:
    """A hash of the bits, and numbers that say by how much an array changed where the bits did."""
    array = np.ascontiguousarray(values)
    flat = array.astype(np.float64).ravel()
    ramp = np.linspace(1, 2, flat.size)
    return {
        "sha256": hashlib.sha256(array.tobytes()).hexdigest()[:16],
        "numbers": [float(flat @ ramp), float(np.abs(flat).sum()), float(np.square(flat).sum())],
    }


def state_digest(state: dict) -> dict:
    return digest(
        np.concatenate([value.detach().double().numpy().ravel() for value in state.values()])
    )


def train(name: str, dtype: torch.dtype = torch.float64) -> dict:
    """30 steps from one seed.

    Float64, so that another machine's rounding stays far below the tolerance.
    """
    architecture, objective, training = TRAININGS[name]
    scans = phantom_scans(6, 2, 32, seed=7, paired=training.get("sampling") == "paired")
    torch.manual_seed(11)
    model = CycleGAN(Architecture(**SMALL_NETWORKS | architecture), Objective(**objective)).to(
        dtype
    )
    losses = fit(
        model, scans.train, Training(**{"steps": STEPS, "learning_rate": 1e-3} | training), seed=5
    )
    weights = state_digest(
        {key: value for key, value in model.state_dict().items() if value.is_floating_point()}
    )
    return {"weights": weights, "losses": digest([sum(step.values()) for step in losses])}


def volumes() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A true CT, a wrong one, an MR (Z, H, W) and the head."""
    patient = synthetic_patients(1, 64, 3, slices=16)
    true, head = patient.ct_hu[0].astype(np.float64), patient.head[0]
    wrong = np.roll(true, 1, axis=2) + np.random.default_rng(0).normal(0, 30, true.shape)
    return true, wrong, patient.mri[0].astype(np.float64), head


def metrics() -> dict:
    true, wrong, mri, head = volumes()
    noisy = mri + np.random.default_rng(1).normal(0, 5, mri.shape)
    mri_range = (0.0, float(mri.max()))
    values = {}
    for name, part in (("3-D", slice(None)), ("2-D", 8)):
        images = wrong[part], true[part], head[part]
        mri_images = noisy[part], mri[part], head[part]
        by_tissue = []
        for tissue in ("air", "soft", "bone"):
            by_tissue += [tissue_mae_hu(*images, tissue), tissue_bias_hu(*images, tissue)]
        values[name] = [
            mae_hu(*images),
            bias_hu(*images),
            psnr_db(*images, SYNTHRAD2023_RANGE),
            psnr_db(*images, SYNTHRAD2025_RANGE),
            ssim(*images, SYNTHRAD2023_RANGE),
            ms_ssim(*images, SYNTHRAD2025_RANGE),
            bone_dice(*images),
            bone_hd95_mm(*images, 3.0),
            wepl_error_mm(*images, 3.0),
            *by_tissue,
            nmae(*mri_images, mri_range),
            rank_correlation(*mri_images),
        ]
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(40, 8)), rng.normal(0.3, 1, size=(50, 8))
    values["distributions"] = [*kid(a, b, seed=3), fid(a, b)]
    patient = synthetic_patients(2, 64, 5, lesion="subacute", lesion_fraction=1.0)
    white = patient.labels == 7
    values["faithfulness"] = [
        lesion_contrast_recovery(
            patient.ct_hu[0], patient.ct_hu_clean[0], patient.lesion[0], white[0]
        ),
        float(detects_lesion(patient.ct_hu[0], patient.head[0])),
        *shift_px(wrong[8], true[8]),
        mask_dice(wrong > 0, true > 0),
        bias_correlation(patient.mri[0], patient.mri_clean[0], patient.bias_field[0], white[0]),
        checkerboard_db(wrong[8]),
        slice_jitter(wrong, true, head),
    ]
    images = torch.from_numpy(mri[:, None] / mri.max() * 2 - 1).float()
    mask = torch.from_numpy(head[:, None])
    values["honesty"] = [
        honesty_ratio(lambda x: x * 0.9, lambda x: x * 0.8, images, images * 0.7, mask)
    ]
    return {name: digest(row) for name, row in values.items()} | {
        "features": digest(features(images, SMALL))
    }


def write_patients(folder: Path) -> None:
    """Three heads of each modality as NIfTI files."""
    for number in range(3):
        patient = synthetic_patients(1, 48, 20 + number, slices=10)
        affine = np.diag([-patient.spacing_mm, -patient.spacing_mm, patient.slice_spacing_mm, 1.0])
        for modality, values in (("ct", patient.ct_hu[0]), ("mri", patient.mri[0] * 5)):
            (folder / modality).mkdir(parents=True, exist_ok=True)
            volume = Volume(values.transpose(2, 1, 0).astype(np.float32), affine, modality)
            write_nifti(volume, folder / modality / f"person{number}.nii")


def files() -> dict:
    digests = {}
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings(action="ignore"):
        folder = Path(temporary)
        write_patients(folder)
        written = (folder / "ct" / "person0.nii").read_bytes()
        digests["NIfTI bytes"] = digest(np.frombuffer(written, np.uint8))

        for path in folder.rglob("*.nii"):
            # They are scans here: translations are not prepared.
            path.write_bytes(path.read_bytes()[:148] + bytes(80) + path.read_bytes()[228:])
        options = Preparation(size=64, seed=1)
        prepare_slices(folder / "prepared", folder / "ct", folder / "mri", options)
        scans = folder_scans(folder / "prepared", 64)
        rows = (folder / "prepared" / "manifest.csv").read_text(encoding="utf-8").splitlines()
        # Without the files' own hashes: another zlib packs the same pixels otherwise.
        manifest = "\n".join(sorted(row.rpartition(",")[0] for row in rows))
        digests["prepared slices"] = digest(
            torch.cat([scans.train.ct, scans.train.mri, scans.test.ct, scans.test.mri]).numpy()
        )
        digests["manifest"] = digest(np.frombuffer(manifest.encode(), np.uint8))

        model = load_translator(data_folder() / "weights" / "heads.safetensors")
        volume = read_nifti(folder / "mri" / "person1.nii", "mri")
        translated = translate_volume(model, volume)
        digests["translated volume"] = digest(translated.values)
        write_series(translated, folder / "series")
        digests["DICOM"] = dicom(folder / "series")
        digests["DICOM read back"] = digest(read_series(folder / "series").values)

        save_weights(model, folder / "weights.safetensors")
        digests["weights bytes"] = digest(
            np.frombuffer((folder / "weights.safetensors").read_bytes(), np.uint8)
        )
        digests["ONNX"] = onnx(model, folder / "ct.onnx")
    digests["embedded scans"] = digest(embedded())
    return digests


def dicom(folder: Path) -> dict:
    """Every tag of every file but the UIDs, which are new each time."""
    import pydicom

    lines = []
    for path in sorted(folder.iterdir()):
        tags = [
            f"{tag.tag} {tag.VR} {tag.value if tag.VR != 'OW' else tag.value.hex()}"
            for tag in pydicom.dcmread(path)
            if tag.VR != "UI"
        ]
        lines += [path.name, *tags]
    return digest(np.frombuffer("\n".join(lines).encode(), np.uint8))


def onnx(model, path: Path) -> dict:
    import onnxruntime

    export_onnx(path, model.averaged["ct"], {})
    image = np.random.default_rng(4).uniform(-1, 1, (2, 1, 40, 48)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return digest(onnxruntime.InferenceSession(path, options).run(None, {"image": image})[0])


def embedded() -> np.ndarray:
    scans = folder_scans(data_folder() / "scans", 64)
    return torch.cat([scans.train.ct, scans.train.mri, scans.test.ct, scans.test.mri]).numpy()


def all_digests() -> dict:
    torch.set_num_threads(1)
    trainings = {f"training: {name}": train(name) for name in TRAININGS}
    single = {"training: lsgan in float32": train("lsgan", torch.float32)}
    return trainings | single | {"metrics": metrics(), "files": files()}


def differences(new: dict, kept: dict, path: str = "") -> list[str]:
    """Which digests differ in their bits, and by what share of the kept number at most."""
    if "sha256" in kept:
        if new["sha256"] == kept["sha256"]:
            return []
        numbers, expected = np.array(new["numbers"]), np.array(kept["numbers"])
        shares = np.abs(numbers - expected) / np.abs(expected).clip(1e-12)
        return [f"{path}: other bits, numbers differ by {shares.max():.1e}"]
    lines = []
    for name in kept:
        lines += differences(new[name], kept[name], f"{path}/{name}")
    return lines


if __name__ == "__main__":
    new = all_digests()
    if sys.argv[1:] == ["--write"]:
        FILE.write_text(json.dumps(new, indent=1) + "\n", encoding="utf-8")
    else:
        kept = json.loads(FILE.read_text(encoding="utf-8"))
        print("\n".join(differences(new, kept)) or "every digest is the same to the bit")
