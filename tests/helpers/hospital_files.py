"""Files as a hospital's programs write them, without this package's label, and the command."""

import gzip

import numpy as np
import SimpleITK as sitk

from ctmri_utils.__main__ import main
from ctmri_utils.scans.phantom import synthetic_patients
from ctmri_utils.volumes.nifti import write_nifti


def ctmri(*words):
    """Run the command with these words, and return its exit status."""
    return main([str(word) for word in words])


def write_scan(volume, path):
    """As `write_nifti`, but the file does not call itself synthetic."""
    write_nifti(volume, path)
    unpacked = path.name.endswith(".nii")
    content = path.read_bytes() if unpacked else gzip.decompress(path.read_bytes())

    # The field `descrip` of the header.
    content = content[:148] + bytes(80) + content[228:]
    path.write_bytes(content if unpacked else gzip.compress(content))


def write_with_simple_itk(values, affine, path, compressed=True):
    """Write (I, J, K) as another program would: .mha, .mhd, .nrrd or NIfTI."""
    steps = np.diag([-1.0, -1, 1]) @ affine[:3, :3]
    spacing = np.linalg.norm(steps, axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((steps / spacing).ravel().tolist())
    image.SetOrigin((np.diag([-1.0, -1, 1]) @ affine[:3, 3]).tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=compressed)


def write_pairs(root, place, people=3, first=100, slices=8, with_mask=True):
    """Registered CT and MR of phantoms at `place`, such as "Task1/brain/1BA{:03d}/{}.nii.gz"."""
    for k in range(people):
        patient = synthetic_patients(1, 64, first + k, slices=slices)
        sides = patient.spacing_mm, patient.spacing_mm, patient.slice_spacing_mm
        affine = np.diag([-sides[0], -sides[1], sides[2], 1.0])
        affine[:3, 3] = 10, -20, 30
        images = {"ct": patient.ct_hu[0], "mr": 5 * patient.mri[0], "mask": patient.head[0]}
        for name, image in images.items():
            if name != "mask" or with_mask:
                kind = np.uint8 if name == "mask" else np.int16
                values = np.rint(image.transpose(2, 1, 0)).astype(kind)
                write_with_simple_itk(values, affine, root / place.format(k + 1, name))
