"""Find the course's Kaggle data set, or download it with Kaggle's own client.

The download is checked before it is unpacked, and recorded in a manifest. In a notebook on Kaggle
the set is attached instead.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
from collections import Counter
from pathlib import Path

from .. import machine
from ..machine import data_folder, on_kaggle
from .archives import MOST_BYTES, BadArchive, check_room, unpack
from .kaggle_access import Credential, DownloadFailed, client, find_credential
from .slices import image_folder, image_folders

DATASET = "darren2020/ct-to-mri-cgan"
PAGE = f"https://www.kaggle.com/datasets/{DATASET}"
TOKENS = "https://www.kaggle.com/settings/api"

# It is written last, so it marks a finished download.
MANIFEST = "manifest.json"
# The folder of the files until the download is finished.
UNFINISHED = ".unfinished"


def download() -> Path:
    """Download the data set to data/kaggle, unless it is there or attached.

    It is fetched and unpacked in data/kaggle/.unfinished, moved, and recorded with sizes and
    SHA-256 in manifest.json, which is written last. If that is missing, or files are, everything is
    repeated; what was fetched so far is used again.

    Returns:
        The folder that holds trainA, trainB, testA and testB.

    Raises:
        DownloadFailed: anything between a missing credential and a full disk.
        ModuleNotFoundError: Kaggle's client is not installed.
        ValueError: see `attached`.
    """
    attached_folder = attached()
    if attached_folder:
        return attached_folder

    target = data_folder() / "kaggle"
    try:
        if not is_complete(target):
            install_dataset(target)
        if (target / UNFINISHED).exists():
            shutil.rmtree(target / UNFINISHED)
        return image_folder(target)
    except DownloadFailed:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DownloadFailed(
                f"the disk of {target} is full ({error.strerror}): free some space and try "
                "again, what was downloaded is kept"
            ) from None
        raise DownloadFailed(
            f"{target} cannot be written ({error.strerror}): check its permissions and the disk"
        ) from None


def install_dataset(target: Path) -> None:
    """Fetch, unpack, move and record the data set."""
    unfinished = target / UNFINISHED
    unfinished.mkdir(parents=True, exist_ok=True)
    (target / MANIFEST).unlink(missing_ok=True)

    archive = fetch(unfinished / "archive.zip")
    files = unpack_dataset(archive, unfinished / "files")
    for name in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(unfinished / "files" / name, target / name)

    counts = Counter(name.rpartition("/")[0] for name in files)
    record = {"dataset": DATASET, "counts": counts, "files": files}
    (unfinished / MANIFEST).write_text(json.dumps(record, indent=1), encoding="utf-8")
    os.replace(unfinished / MANIFEST, target / MANIFEST)


def unpack_dataset(archive: Path, folder: Path) -> dict[str, dict]:
    """Unpack the archive and check that it holds the folders that the course knows.

    A bad archive is deleted, so that it is fetched again.
    """
    try:
        files = unpack(archive, folder, reserved=(MANIFEST, UNFINISHED))
        image_folder(folder)
        return files
    except (BadArchive, FileNotFoundError) as error:
        archive.unlink()
        raise DownloadFailed(
            f"what Kaggle sent is not the data set: {error}; check {PAGE}, or try again"
        ) from None


def is_complete(target: Path) -> bool:
    """Whether every file that the manifest lists exists and has the recorded size."""
    try:
        files = json.loads((target / MANIFEST).read_text(encoding="utf-8"))["files"]
        sizes = {name: entry["bytes"] for name, entry in files.items()}
        return bool(sizes) and sizes == {name: (target / name).stat().st_size for name in sizes}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def attached() -> Path | None:
    """Find the data set among those attached to a notebook on Kaggle.

    Returns:
        The folder that holds trainA, trainB, testA and testB; None elsewhere, or without one.

    Raises:
        ValueError: several sets have these folders, and none is called as the course's is.
    """
    if not on_kaggle():
        return None
    folders = image_folders(machine.KAGGLE / "input")
    for folder in folders:
        if DATASET.split("/")[1] in folder.parts:
            return folder
    if len(folders) > 1:
        raise ValueError(
            f"several attached data sets have trainA, trainB, testA and testB "
            f"({', '.join(map(str, folders))}): name one of these folders as DATASET"
        )
    return folders[0] if folders else None


def downloaded() -> Path:
    """Find the data set, attached or downloaded.

    Returns:
        The folder that holds trainA, trainB, testA and testB.

    Raises:
        FileNotFoundError: it is missing or unfinished; says how to get it.
        ValueError: see `attached`.
    """
    attached_folder = attached()
    if attached_folder:
        return attached_folder

    target = data_folder() / "kaggle"
    shown = target
    if machine.CHECKOUT in target.parents:
        shown = target.relative_to(machine.CHECKOUT)
    remedy = 'run `ctmri download`, or use DATASET="scans"'
    if on_kaggle():
        remedy = f'attach {DATASET} by "Add Input", or use DATASET="scans"'

    if (target / UNFINISHED).is_dir() and not (target / MANIFEST).is_file():
        raise FileNotFoundError(f"{shown} holds an unfinished download: {remedy}")
    try:
        return image_folder(target)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{shown} does not hold Kaggle's data set: {remedy}") from error


def fetch(archive: Path) -> Path:
    """Fetch the data set as one zip; a download that broke off is continued.

    Args:
        archive: the file to write, in an existing folder.

    Returns:
        The same path.

    Raises:
        DownloadFailed: Kaggle refuses, or the connection fails.
    """
    api, sdk = client()
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    credential, unusable = find_credential()
    try:
        with sdk.KaggleClient(
            username=credential.username, password=credential.key, api_token=credential.token
        ) as kaggle:
            fetch_with_client(kaggle, api, archive)
    except (RequestException, HTTPError, ValueError) as error:
        response = getattr(error, "response", None)
        raise DownloadFailed(explain(response, credential, unusable)) from None
    return archive


def fetch_with_client(kaggle, api, archive: Path) -> None:
    """Ask Kaggle for the data set, and write what is still missing of its zip."""
    from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

    request = ApiDownloadDatasetRequest()
    request.owner_slug, request.dataset_slug = DATASET.split("/")
    response = kaggle.datasets.dataset_api_client.download_dataset(request)

    size = int(response.headers.get("Content-Length", 0))
    if size > MOST_BYTES:
        raise DownloadFailed(
            f"Kaggle offers {size / 1e9:.0f} GB, far more than this data set has: check {PAGE}"
        )
    present = archive.stat().st_size if archive.is_file() else 0
    check_room(archive.parent, size - present)

    # The client prints addresses that are signed for the user; its progress bar stays.
    with contextlib.redirect_stdout(io.StringIO()):
        if present != size or api().download_needed(response, str(archive)):
            api().download_file(
                response,
                str(archive),
                kaggle.http_client(),
                quiet=False,
                resume=True,
                max_retries=3,
            )


def explain(response, credential: Credential, unusable: list[str]) -> str:
    """Say in one sentence what Kaggle answered, to whom, and what to do.

    Args:
        response: of the failed request, None if there was none.
        credential: that Kaggle was shown.
        unusable: what is wrong with other credentials.

    Returns:
        The sentence.
    """
    if response is None:
        return (
            "the connection to Kaggle failed or was interrupted: check the network and try "
            'again, or use DATASET="scans"'
        )
    status = response.status_code
    if status in (401, 403):
        return explain_refusal(status, credential, unusable)
    if status == 404:
        return (
            f'Kaggle has no data set {DATASET} any more (404): check {PAGE}, or use DATASET="scans"'
        )
    if status == 429:
        pause = response.headers.get("Retry-After", "")
        delay = f"{pause} seconds" if pause.isdecimal() else "some minutes"
        return f"Kaggle asks you to wait (429, too many requests): try again in {delay}"
    return f'Kaggle answered with an error ({status}): try again later, or use DATASET="scans"'


def explain_refusal(status: int, credential: Credential, unusable: list[str]) -> str:
    """Say why Kaggle refuses a credential, and what to do."""
    not_used = f" (not used: {'; '.join(unusable)})" if unusable else ""
    if not credential.source:
        return (
            f"Kaggle requires authentication ({status}), and no usable credential was "
            f"found{not_used}: create a token at {TOKENS} and put it into ~/.kaggle/access_token, "
            "the variable KAGGLE_API_TOKEN, or on Colab the secret of that name"
        )
    if status == 401:
        return (
            f"Kaggle does not accept {credential.source} (401){not_used}: create a new token at "
            f"{TOKENS} and put it there, or sign in again"
        )
    return (
        f"Kaggle does not let {credential.source} download this data set (403){not_used}: sign in "
        f"at {PAGE} and see what it asks for"
    )
