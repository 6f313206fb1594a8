"""Where the course's repository stands, and its notebooks in Colab and Kaggle."""

from __future__ import annotations

import tomllib
from importlib.metadata import metadata

from ..machine import CHECKOUT

COLAB = "https://colab.research.google.com"
KAGGLE = "https://www.kaggle.com/kernels/welcome?src="


def repository() -> str:
    """The address of the course's repository, from pyproject.toml or the installed package."""
    if CHECKOUT is None:
        addresses = metadata("ctmri-utils").get_all("Project-URL")
        address_of = dict(line.split(", ") for line in addresses)
        return address_of["Repository"].removesuffix("/")
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"].removesuffix("/")


def open_links(path: str, address: str) -> tuple[str, str]:
    """Where a notebook opens in Colab and in Kaggle, once it is pushed.

    Args:
        path: of the notebook below the repository's address, such as blob/main/notebooks/x.ipynb.
        address: of the repository.
    """
    owner_and_name = address.removeprefix("https://github.com/")
    return f"{COLAB}/github/{owner_and_name}/{path}", f"{KAGGLE}{address}/{path}"
