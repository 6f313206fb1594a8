"""The command download; what it runs is imported when it runs."""

from __future__ import annotations


def download() -> None:
    """Download the Kaggle data set darren2020/ct-to-mri-cgan and check it."""
    from .checks import check_folder
    from .kaggle import download as fetch

    folder = fetch()
    print(f'{folder} holds the data set; use DATASET="kaggle".\n\n{check_folder(folder)}')
