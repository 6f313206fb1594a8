"""The command download; what it runs is imported when it runs."""

from __future__ import annotations


def download() -> None:
    """Download and check the data set darren2020/ct-to-mri-cgan."""
    from .checks import check_folder
    from .kaggle import download as fetch

    folder = fetch()
    print(f'{folder} holds the data set; use DATASET="kaggle".\n\n{check_folder(folder)}')
