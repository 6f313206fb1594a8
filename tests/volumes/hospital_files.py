"""NIfTI files as a hospital's programs write them, without our label of a translation."""

import gzip

from ctmri_utils.volumes.nifti import write_nifti


def write_scan(volume, path):
    """As `write_nifti`, but the file does not call itself synthetic."""
    write_nifti(volume, path)
    unpacked = path.name.endswith(".nii")
    content = path.read_bytes() if unpacked else gzip.decompress(path.read_bytes())

    # The field `descrip` of the header.
    content = content[:148] + bytes(80) + content[228:]
    path.write_bytes(content if unpacked else gzip.compress(content))
