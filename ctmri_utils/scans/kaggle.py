"""The course's Kaggle data set.

Fetched with Kaggle's own client, distrusted, unpacked, and recorded in a manifest.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import re
import shutil
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .. import machine as settings
from ..machine import data_folder
from .archives import MOST_BYTES, BadArchive, check_room, unpack
from .checks import check
from .slices import image_folder

DATASET = "darren2020/ct-to-mri-cgan"
PAGE, TOKENS = f"https://www.kaggle.com/datasets/{DATASET}", "https://www.kaggle.com/settings/api"
# the last thing written, and where everything is before
MANIFEST, UNFINISHED = "manifest.json", ".unfinished"


class DownloadFailed(OSError):
    """Why there is no data set, in one sentence that holds no secret."""


@dataclass(frozen=True)
class Credential:
    """What Kaggle is shown, and in which place it was found ("" for nothing at all).

    Its repr leaves the secrets out.
    """

    place: str = ""
    username: str | None = None
    key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


def download() -> Path:
    """Bring the data set to data/kaggle unless it is there, and return the folder that holds
    trainA, trainB, testA and testB.

    Fetched and unpacked in data/kaggle/.unfinished, moved, and recorded with sizes and SHA-256 in
    manifest.json, which is written last: without it, or if files are missing, everything is
    repeated; what was fetched so far is used again. Raises DownloadFailed for anything between a
    missing credential and a full disk, ModuleNotFoundError without the client.
    """
    target = data_folder() / "kaggle"
    unfinished, manifest = target / UNFINISHED, target / MANIFEST
    try:
        if not is_complete(target):
            unfinished.mkdir(parents=True, exist_ok=True)
            manifest.unlink(missing_ok=True)
            files = _unpacked(fetch(unfinished / "archive.zip"), unfinished / "files")
            for name in files:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(unfinished / "files" / name, target / name)
            record = {
                "dataset": DATASET,
                "counts": Counter(name.rpartition("/")[0] for name in files),
                "files": files,
            }
            (unfinished / MANIFEST).write_text(json.dumps(record, indent=1), encoding="utf-8")
            os.replace(unfinished / MANIFEST, manifest)
        if unfinished.exists():
            shutil.rmtree(unfinished)
        return image_folder(target)
    except DownloadFailed:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DownloadFailed(
                f"the disk of {target} is full ({error.strerror}): make room and repeat, what was "
                "fetched is kept"
            ) from None
        raise DownloadFailed(
            f"{target} cannot be written ({error.strerror}): check its permissions and the disk"
        ) from None


def _unpacked(archive: Path, folder: Path) -> dict[str, dict]:
    """`unpack`, and proof that the folders are those the course knows.

    A bad archive is deleted, so that it is fetched again.
    """
    try:
        files = unpack(archive, folder, reserved=(MANIFEST, UNFINISHED))
        image_folder(folder)
        return files
    except (BadArchive, FileNotFoundError) as error:
        archive.unlink()
        raise DownloadFailed(
            f"what Kaggle sent is not the data set: {error}; look at {PAGE}, or repeat"
        ) from None


def is_complete(target: Path) -> bool:
    """Whether every file that the manifest lists is there, with its size."""
    try:
        files = json.loads((target / MANIFEST).read_text(encoding="utf-8"))["files"]
        return bool(files) and all(
            (target / name).stat().st_size == entry["bytes"] for name, entry in files.items()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def downloaded() -> Path:
    """The folder that holds the downloaded trainA, trainB, testA and testB.

    Raises FileNotFoundError, saying how to get them.
    """
    target = data_folder() / "kaggle"
    shown = target.relative_to(settings.CHECKOUT) if settings.CHECKOUT in target.parents else target
    remedy = 'run `python -m ctmri_utils download`, or use DATASET="scans"'
    if (target / UNFINISHED).is_dir() and not (target / MANIFEST).is_file():
        raise FileNotFoundError(f"{shown} holds an unfinished download: {remedy}")
    try:
        return image_folder(target)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{shown} does not hold Kaggle's data set: {remedy}") from error


def client():
    """Kaggle's client, as (KaggleApi, kagglesdk).

    It signs in and prints advice when it is imported; neither is wanted here.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import kagglesdk
            from kaggle.api.kaggle_api_extended import KaggleApi
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"downloading needs {error.name}: pip install 'ctmri-utils[course]'"
        ) from error
    except (Exception, SystemExit):
        # clients before 2.2.4 end the program if nobody is signed in
        raise DownloadFailed(
            "this kaggle client does not start without a credential: pip install --upgrade kaggle"
        ) from None
    # on DEBUG, which the client may set, it logs addresses signed for you
    logging.getLogger("urllib3").setLevel(logging.INFO)
    return KaggleApi, kagglesdk


def find_credential() -> tuple[Credential, list[str]]:
    """The first usable credential, tokens first, and what is wrong with those passed over on the
    way.

    Places: a Kaggle notebook's own token, KAGGLE_API_TOKEN (a token, or a file that holds one),
    ~/.kaggle/access_token, the Colab secret KAGGLE_API_TOKEN; KAGGLE_USERNAME with KAGGLE_KEY,
    kaggle.json, the Colab secrets of these names; `kaggle auth login`. Raises DownloadFailed for
    one that cannot be right: the client would stumble over it, and print it in its complaint.
    """
    useless: list[str] = []
    for find in (_token, _colab_token, _key, _colab_key, _sign_in):
        if found := find(useless):
            if not all(
                re.fullmatch("[!-~]+", secret)
                for secret in (found.username, found.key, found.token)
                if secret is not None
            ):
                raise DownloadFailed(
                    f"{found.place} cannot be right, being empty or with blanks or letters that no "
                    "credential has: copy it again, or remove it"
                )
            return found, useless
    return Credential(), useless


def _token(useless: list[str]) -> Credential | None:
    try:
        token, source = client()[1].get_access_token_from_env()
    except (OSError, ValueError) as error:
        # long ones cannot be asked for as a file name
        token, source = os.environ.get("KAGGLE_API_TOKEN"), "KAGGLE_API_TOKEN"
        if getattr(error, "errno", None) != errno.ENAMETOOLONG:
            raise DownloadFailed(
                "the file with your Kaggle token, ~/.kaggle/access_token or the one that "
                "KAGGLE_API_TOKEN names, cannot be read: check its permissions, and that it holds "
                "the token as plain text"
            ) from None
    place = "~/.kaggle/access_token" if source == "access_token" else f"the variable {source}"
    if token is None and (
        source
        or any(
            (Path.home() / ".kaggle" / name).is_file()
            for name in ("access_token", "access_token.txt")
        )
    ):
        useless.append(
            "the file that KAGGLE_API_TOKEN names is empty"
            if source
            else "~/.kaggle/access_token is empty"
        )
    return Credential(place, token=token.strip()) if token else None


def _key(useless: list[str]) -> Credential | None:
    values, places = {}, []
    home, config = Path.home(), os.environ.get("KAGGLE_CONFIG_DIR")
    folders = [
        Path(config or home / ".kaggle"),
        home / ".kaggle",
        Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle",
    ]
    if path := next(
        (path for folder in folders if (path := folder / "kaggle.json").is_file()), None
    ):
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
            values, places = (
                {name: str(read[name]).strip() for name in ("username", "key") if read.get(name)},
                [str(path)],
            )
        except (OSError, ValueError, AttributeError):
            raise DownloadFailed(
                f"{path} cannot be read as JSON with a username and a key: correct or remove it"
            ) from None
    for name in ("username", "key"):
        if value := os.environ.get(f"KAGGLE_{name.upper()}"):
            values[name] = value.strip()
            places.append(f"the variable KAGGLE_{name.upper()}")
    if len(values) == 2:
        return Credential(" with ".join(places), **values)
    if places:
        useless.append(
            f"{' with '.join(places)} lacks {'a username' if 'key' in values else 'a key'}"
        )
    return None


def _colab(name: str, useless: list[str]) -> str | None:
    if "google.colab" not in sys.modules:
        return None
    from google.colab import userdata

    try:
        return userdata.get(name).strip()
    except userdata.SecretNotFoundError:
        return None
    except userdata.NotebookAccessError:
        useless.append(
            f"the Colab secret {name} is not shared with this notebook: switch on its notebook "
            "access"
        )
    except Exception:
        # Colab did not answer
        useless.append(f"the Colab secret {name} could not be read")
    return None


def _colab_token(useless: list[str]) -> Credential | None:
    token = _colab("KAGGLE_API_TOKEN", useless)
    return None if token is None else Credential("the Colab secret KAGGLE_API_TOKEN", token=token)


def _colab_key(useless: list[str]) -> Credential | None:
    username, key = (_colab(name, useless) for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"))
    if (username is None) != (key is None):
        useless.append(
            f"the Colab secret {'KAGGLE_KEY' if key is None else 'KAGGLE_USERNAME'} is missing"
        )
    return (
        Credential("the Colab secrets KAGGLE_USERNAME and KAGGLE_KEY", username, key)
        if username and key
        else None
    )


def _sign_in(useless: list[str]) -> Credential | None:
    sdk = client()[1]
    try:
        signed_in = sdk.KaggleCredentials.load(client=sdk.KaggleClient())
        return signed_in and Credential(
            "the sign-in of `kaggle auth login`", token=signed_in.get_access_token()
        )
    except (OSError, ValueError, TypeError, AttributeError):
        useless.append("the sign-in of `kaggle auth login` has expired or is damaged")
    return None


def fetch(archive: Path) -> Path:
    """The data set as one zip at `archive`, its folder existing; a broken-off one is continued.

    Raises DownloadFailed.
    """
    api, sdk = client()
    from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    credential, useless = find_credential()
    request = ApiDownloadDatasetRequest()
    request.owner_slug, request.dataset_slug = DATASET.split("/")
    try:
        with sdk.KaggleClient(
            username=credential.username, password=credential.key, api_token=credential.token
        ) as kaggle:
            response = kaggle.datasets.dataset_api_client.download_dataset(request)
            size = int(response.headers.get("Content-Length", 0))
            if size > MOST_BYTES:
                raise DownloadFailed(
                    f"Kaggle offers {size / 1e9:.0f} GB, far more than this data set has: look at "
                    f"{PAGE}"
                )
            here = archive.stat().st_size if archive.is_file() else 0
            check_room(archive.parent, size - here)
            # the client prints addresses that are signed for you; the bar stays
            with contextlib.redirect_stdout(io.StringIO()):
                if here != size or api().download_needed(response, str(archive)):
                    api().download_file(
                        response,
                        str(archive),
                        kaggle.http_client(),
                        quiet=False,
                        resume=True,
                        max_retries=3,
                    )
    except (RequestException, HTTPError, ValueError) as error:
        raise DownloadFailed(
            explain(getattr(error, "response", None), credential, useless)
        ) from None
    return archive


def explain(response, credential: Credential, useless: list[str]) -> str:
    """One sentence on what Kaggle answered (None: nothing), to whom, and what to do."""
    found = f" (not used: {'; '.join(useless)})" if useless else ""
    status = None if response is None else response.status_code
    if status is None:
        return (
            "the connection to Kaggle failed or broke off: check the network and repeat, or use "
            'DATASET="scans"'
        )
    if status in (401, 403) and not credential.place:
        return (
            f"Kaggle wants to know who you are ({status}), and no usable credential was "
            f"found{found}: make a token at {TOKENS} and put it into ~/.kaggle/access_token, the "
            "variable KAGGLE_API_TOKEN, or on Colab the secret of that name"
        )
    if status == 401:
        return (
            f"Kaggle does not accept {credential.place} (401){found}: make a new token at {TOKENS} "
            "and put it there, or sign in again"
        )
    if status == 403:
        return (
            f"Kaggle does not give this data set to {credential.place} (403){found}: sign in at "
            f"{PAGE} and look what is asked of you"
        )
    if status == 404:
        return (
            f"Kaggle has no data set {DATASET} any more (404): look at {PAGE}, or use "
            'DATASET="scans"'
        )
    if status == 429:
        pause = response.headers.get("Retry-After", "")
        return (
            "Kaggle asks for a pause (429, too many requests): repeat in "
            f"{pause + ' seconds' if pause.isdecimal() else 'some minutes'}"
        )
    return f'Kaggle answered with an error ({status}): repeat later, or use DATASET="scans"'


def add_command(commands) -> None:
    """Add `download` to the sub-commands of `python -m ctmri_utils`."""
    parser = commands.add_parser(
        "download", help=f"fetch the Kaggle data set {DATASET} and check it"
    )
    parser.set_defaults(run=command)


def command(options) -> None:
    """`python -m ctmri_utils download`."""
    folder = download()
    print(f'{folder} holds the data set; use DATASET="kaggle".\n\n{check(folder)}')
