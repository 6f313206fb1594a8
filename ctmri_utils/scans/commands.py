"""The command download; what it runs is imported when it runs."""

from __future__ import annotations


def download() -> None:
    """Fetch the Kaggle data set darren2020/ct-to-mri-cgan and check it."""
    from .checks import check
    from .kaggle import download as fetch

    folder = fetch()
    print(f'{folder} holds the data set; use DATASET="kaggle".\n\n{check(folder)}')
