"""Kaggle's client, and the credential to show it."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

# Below ~/.kaggle; the second is what Windows makes of the first.
TOKEN_FILES = ("access_token", "access_token.txt")


class DownloadFailed(OSError):
    """Why there is no data set, in one sentence that holds no secret."""


@dataclass(frozen=True)
class Credential:
    """What Kaggle is shown. Its repr leaves the secrets out.

    Args:
        source: where it was found, "" if there is none.
        username: of a key.
        key: belongs to the username.
        token: instead of username and key.
    """

    source: str = ""
    username: str | None = None
    key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


def client():
    """Import Kaggle's client.

    It signs in and prints advice when it is imported. Neither is useful here.

    Returns:
        (KaggleApi, kagglesdk).

    Raises:
        ModuleNotFoundError: the client is not installed.
        DownloadFailed: the client is too old.
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
        # Clients before 2.2.4 end the program if nobody is signed in.
        raise DownloadFailed(
            "this kaggle client does not start without a credential: pip install --upgrade kaggle"
        ) from None

    # The client may set DEBUG, on which urllib3 logs addresses that are signed for the user.
    logging.getLogger("urllib3").setLevel(logging.INFO)
    return KaggleApi, kagglesdk


def find_credential() -> tuple[Credential, list[str]]:
    """Find the first usable credential, tokens first.

    Tokens: a Kaggle notebook's own, KAGGLE_API_TOKEN (a token, or a file that holds one),
    ~/.kaggle/access_token, the Colab secret KAGGLE_API_TOKEN. Keys: kaggle.json, KAGGLE_USERNAME
    with KAGGLE_KEY, the Colab secrets of these names. Last, `kaggle auth login`.

    Returns:
        The credential, empty if there is none, and what is wrong with those that were passed over.

    Raises:
        DownloadFailed: the credential cannot be right. The client would stumble over it, and print
            it in its complaint.
    """
    unusable: list[str] = []
    for find in (token_credential, colab_token, key_credential, colab_key, stored_sign_in):
        credential = find(unusable)
        if credential:
            check_credential(credential)
            return credential, unusable
    return Credential(), unusable


def check_credential(credential: Credential) -> None:
    """Raise DownloadFailed for a credential with characters that none has."""
    for secret in (credential.username, credential.key, credential.token):
        if secret is not None and not re.fullmatch("[!-~]+", secret):
            raise DownloadFailed(
                f"{credential.source} cannot be right, because it is empty or has characters that "
                "no credential has: copy it again, or remove it"
            )


def token_credential(unusable: list[str]) -> Credential | None:
    """A token that the client finds: in a Kaggle notebook, a variable or a file."""
    _, sdk = client()
    try:
        token, source = sdk.get_access_token_from_env()
    except (OSError, ValueError) as error:
        # The client tries a token as a file name, and the system refuses long names.
        if getattr(error, "errno", None) != errno.ENAMETOOLONG:
            raise DownloadFailed(
                "the file with your Kaggle token, ~/.kaggle/access_token or the one that "
                "KAGGLE_API_TOKEN names, cannot be read: check its permissions, and that it holds "
                "the token as plain text"
            ) from None
        token = os.environ.get("KAGGLE_API_TOKEN")
        source = "KAGGLE_API_TOKEN"

    if token:
        in_file = source == "access_token"
        title = "~/.kaggle/access_token" if in_file else f"the variable {source}"
        return Credential(title, token=token.strip())

    # The client reports an empty file as no token.
    if token is None and source:
        unusable.append("the file that KAGGLE_API_TOKEN names is empty")
    elif token is None and any((Path.home() / ".kaggle" / name).is_file() for name in TOKEN_FILES):
        unusable.append("~/.kaggle/access_token is empty")
    return None


def key_credential(unusable: list[str]) -> Credential | None:
    """A username with its key, from kaggle.json and the variables; the variables win."""
    values, sources = {}, []
    path = kaggle_json()
    if path is not None:
        values = read_kaggle_json(path)
        sources.append(str(path))

    for name in ("username", "key"):
        variable = f"KAGGLE_{name.upper()}"
        if os.environ.get(variable):
            values[name] = os.environ[variable].strip()
            sources.append(f"the variable {variable}")

    if len(values) == 2:
        return Credential(" with ".join(sources), **values)
    if sources:
        missing = "a username" if "key" in values else "a key"
        unusable.append(f"{' with '.join(sources)} lacks {missing}")
    return None


def kaggle_json() -> Path | None:
    """The first kaggle.json in the folders where the client looks."""
    default = Path.home() / ".kaggle"
    configured = os.environ.get("KAGGLE_CONFIG_DIR") or default
    xdg_config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    for folder in (Path(configured), default, Path(xdg_config) / "kaggle"):
        path = folder / "kaggle.json"
        if path.is_file():
            return path
    return None


def read_kaggle_json(path: Path) -> dict[str, str]:
    """The username and the key in a kaggle.json."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = [name for name in ("username", "key") if content.get(name)]
        return {name: str(content[name]).strip() for name in names}
    except (OSError, ValueError, AttributeError):
        raise DownloadFailed(
            f"{path} cannot be read as JSON with a username and a key: correct it, or move it away"
        ) from None


def colab_secret(name: str, unusable: list[str]) -> str | None:
    """A secret of Google Colab, None if there is none or this is not Colab."""
    if "google.colab" not in sys.modules:
        return None
    from google.colab import userdata

    try:
        return userdata.get(name).strip()
    except userdata.SecretNotFoundError:
        return None
    except userdata.NotebookAccessError:
        unusable.append(
            f"the Colab secret {name} is not shared with this notebook: switch on its notebook "
            "access"
        )
    except Exception:
        # Colab did not answer.
        unusable.append(f"the Colab secret {name} could not be read")
    return None


def colab_token(unusable: list[str]) -> Credential | None:
    """A token in the secrets of Google Colab."""
    token = colab_secret("KAGGLE_API_TOKEN", unusable)
    if token is None:
        return None
    return Credential("the Colab secret KAGGLE_API_TOKEN", token=token)


def colab_key(unusable: list[str]) -> Credential | None:
    """A username with its key in the secrets of Google Colab."""
    username = colab_secret("KAGGLE_USERNAME", unusable)
    key = colab_secret("KAGGLE_KEY", unusable)
    if (username is None) != (key is None):
        missing = "KAGGLE_KEY" if key is None else "KAGGLE_USERNAME"
        unusable.append(f"the Colab secret {missing} is missing")
    if username and key:
        return Credential("the Colab secrets KAGGLE_USERNAME and KAGGLE_KEY", username, key)
    return None


def stored_sign_in(unusable: list[str]) -> Credential | None:
    """The sign-in that `kaggle auth login` stored."""
    _, sdk = client()
    try:
        signed_in = sdk.KaggleCredentials.load(client=sdk.KaggleClient())
        if not signed_in:
            return None
        token = signed_in.get_access_token()
        return Credential("the sign-in of `kaggle auth login`", token=token)
    except (OSError, ValueError, TypeError, AttributeError):
        unusable.append("the sign-in of `kaggle auth login` has expired or is damaged")
    return None
