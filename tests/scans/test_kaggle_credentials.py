"""Credentials from every place that Kaggle's client and Colab know, and a sentence for each one
that is missing or wrong.
"""

import json
import sys
import types

import pytest
from loopback_kaggle import BASIC, KEY, TOKEN, USER, failure, served

from ctmri_utils.scans.kaggle import MANIFEST, download
from ctmri_utils.scans.kaggle_access import find_credential


@pytest.fixture
def kaggle(tmp_path, monkeypatch, capfd, caplog):
    with served(tmp_path, monkeypatch, capfd, caplog) as server:
        yield server


def colab(monkeypatch, **secrets):
    """A stand-in for google.colab.userdata; an exception as a secret's value is raised."""

    class SecretNotFoundError(Exception):
        pass

    class NotebookAccessError(Exception):
        pass

    def get(name):
        value = secrets.get(name, SecretNotFoundError(name))
        if value == "private":
            raise NotebookAccessError(name)
        if isinstance(value, Exception):
            raise value
        return value

    userdata = types.SimpleNamespace(
        get=get, SecretNotFoundError=SecretNotFoundError, NotebookAccessError=NotebookAccessError
    )
    package = types.ModuleType("google.colab")
    package.userdata = userdata
    monkeypatch.setitem(sys.modules, "google.colab", package)


def kaggle_json(folder, text=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kaggle.json").write_text(
        json.dumps({"username": USER, "key": KEY}) if text is None else text
    )


def oauth(home, expiry, refresh=KEY):
    (home / ".kaggle" / "credentials.json").write_text(
        json.dumps(
            {
                "refresh_token": refresh,
                "access_token": TOKEN,
                "access_token_expiration": f"{expiry}-01-01T00:00:00+00:00",
                "username": USER,
            }
        )
    )


def write(path, text):
    path.write_text(text)
    return str(path)


# how a credential is given, from (home, monkeypatch); what Kaggle sees
PLACES = {
    "KAGGLE_API_TOKEN": (
        lambda home, env: env.setenv("KAGGLE_API_TOKEN", f"{TOKEN}\n"),
        f"Bearer {TOKEN}",
    ),
    "KAGGLE_API_TOKEN, a file": (
        lambda home, env: env.setenv("KAGGLE_API_TOKEN", write(home / "my", TOKEN + "\n")),
        f"Bearer {TOKEN}",
    ),
    "access_token": (
        lambda home, env: write(home / ".kaggle" / "access_token", TOKEN + "\n"),
        f"Bearer {TOKEN}",
    ),
    "access_token.txt": (
        lambda home, env: write(home / ".kaggle" / "access_token.txt", TOKEN),
        f"Bearer {TOKEN}",
    ),
    "a Kaggle notebook": (
        lambda home, env: [
            env.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive"),
            env.setenv("KAGGLE_DATA_PROXY_URL", "x"),
            env.setenv("KAGGLE_API_V1_TOKEN", write(home / "v1", TOKEN)),
        ],
        f"Bearer {TOKEN}",
    ),
    "Colab's token": (
        lambda home, env: colab(env, KAGGLE_API_TOKEN=f" {TOKEN}\n"),
        f"Bearer {TOKEN}",
    ),
    "KAGGLE_USERNAME and KAGGLE_KEY": (
        lambda home, env: [env.setenv("KAGGLE_USERNAME", USER), env.setenv("KAGGLE_KEY", KEY)],
        BASIC,
    ),
    "~/.kaggle/kaggle.json": (lambda home, env: kaggle_json(home / ".kaggle"), BASIC),
    "~/.config/kaggle/kaggle.json": (
        lambda home, env: kaggle_json(home / ".config" / "kaggle"),
        BASIC,
    ),
    "KAGGLE_CONFIG_DIR": (
        lambda home, env: [
            env.setenv("KAGGLE_CONFIG_DIR", str(home / "x")),
            kaggle_json(home / "x"),
        ],
        BASIC,
    ),
    "a key to replace that of the file": (
        lambda home, env: [
            kaggle_json(home / ".kaggle", json.dumps({"username": USER, "key": "old"})),
            env.setenv("KAGGLE_KEY", KEY),
        ],
        BASIC,
    ),
    "Colab's name and key": (
        lambda home, env: colab(env, KAGGLE_USERNAME=USER, KAGGLE_KEY=KEY),
        BASIC,
    ),
    "kaggle auth login": (lambda home, env: oauth(home, 2999), f"Bearer {TOKEN}"),
    "kaggle auth login, to be renewed": (lambda home, env: oauth(home, 2001), f"Bearer {TOKEN}"),
    "a token before a key": (
        lambda home, env: [kaggle_json(home / ".kaggle"), env.setenv("KAGGLE_API_TOKEN", TOKEN)],
        f"Bearer {TOKEN}",
    ),
    "Colab's token before a key": (
        lambda home, env: [kaggle_json(home / ".kaggle"), colab(env, KAGGLE_API_TOKEN=TOKEN)],
        f"Bearer {TOKEN}",
    ),
    "a key where the token is not shared": (
        lambda home, env: [kaggle_json(home / ".kaggle"), colab(env, KAGGLE_API_TOKEN="private")],
        BASIC,
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_credential_is_found_in_every_place(kaggle, tmp_path, monkeypatch, place):
    give, seen = PLACES[place]
    give(tmp_path / "home", monkeypatch)
    download()
    assert (
        kaggle.asked == [seen]
        and TOKEN not in repr(find_credential())
        and KEY not in repr(find_credential())
    )


def test_a_public_set_needs_no_credential(kaggle):
    kaggle.public = True
    assert download().is_dir() and kaggle.asked == [None]


NOBODY = r"\(401\), and no usable credential was found"
REFUSED = "does not accept the variable KAGGLE_API_TOKEN"
# what is given, from (home, monkeypatch); the sentence
WRONG = {
    "nothing": (
        lambda home, env: None,
        NOBODY + ": create a token at https://www.kaggle.com/settings/api and put it into",
    ),
    "a wrong token": (
        lambda home, env: env.setenv("KAGGLE_API_TOKEN", "wrong"),
        REFUSED + r" \(401\): create a new token",
    ),
    "a long wrong token": (lambda home, env: env.setenv("KAGGLE_API_TOKEN", 99 * KEY), REFUSED),
    "a wrong token file": (
        lambda home, env: write(home / ".kaggle" / "access_token", "wrong"),
        "does not accept ~/.kaggle/access_token",
    ),
    "a wrong key": (
        lambda home, env: kaggle_json(home / ".kaggle", '{"username": "al", "key": "x"}'),
        r"does not accept .*kaggle\.json",
    ),
    "a blank token": (
        lambda home, env: env.setenv("KAGGLE_API_TOKEN", "  "),
        "^the variable KAGGLE_API_TOKEN cannot be right",
    ),
    "a torn token": (
        lambda home, env: env.setenv("KAGGLE_API_TOKEN", f"{TOKEN}\n{KEY}"),
        "copy it again",
    ),
    "a torn secret": (
        lambda home, env: colab(env, KAGGLE_USERNAME=USER, KAGGLE_KEY=f"{KEY}é"),
        "^the Colab secrets .* cannot be right",
    ),
    "an empty token file": (
        lambda home, env: write(home / ".kaggle" / "access_token", ""),
        NOBODY + ".*access_token is empty",
    ),
    "an empty named file": (
        lambda home, env: env.setenv("KAGGLE_API_TOKEN", write(home / "my", "")),
        NOBODY + ".* names is empty",
    ),
    "a binary token file": (
        lambda home, env: (home / ".kaggle" / "access_token").write_bytes(b"\xff\xfe\x00"),
        "cannot be read: check",
    ),
    "a folder as token": (
        lambda home, env: env.setenv("KAGGLE_API_TOKEN", str(home)),
        "cannot be read: check its permissions",
    ),
    "no JSON": (
        lambda home, env: kaggle_json(home / ".config" / "kaggle", "{"),
        r"kaggle\.json cannot be read as JSON.*correct it, or move it",
    ),
    "a list": (
        lambda home, env: kaggle_json(home / ".kaggle", "[1]"),
        r"kaggle\.json cannot be read as JSON",
    ),
    "no text": (
        lambda home, env: (home / ".kaggle" / "kaggle.json").write_bytes(b"\xff\xfe\x00"),
        r"kaggle\.json cannot be read as JSON",
    ),
    "no key": (
        lambda home, env: kaggle_json(home / ".kaggle", '{"username": "alice"}'),
        NOBODY + r".*kaggle\.json lacks a key",
    ),
    "KAGGLE_KEY alone": (
        lambda home, env: env.setenv("KAGGLE_KEY", KEY),
        NOBODY + ".*the variable KAGGLE_KEY lacks a username",
    ),
    "a secret not shared": (
        lambda home, env: colab(env, KAGGLE_API_TOKEN="private"),
        NOBODY + ".*switch on its notebook access",
    ),
    "a secret not told": (
        lambda home, env: colab(env, KAGGLE_API_TOKEN=RuntimeError(KEY)),
        "secret KAGGLE_API_TOKEN could not be read",
    ),
    "half of the secrets": (
        lambda home, env: colab(env, KAGGLE_USERNAME=USER),
        NOBODY + ".*the Colab secret KAGGLE_KEY is missing",
    ),
    "an ended sign-in": (
        lambda home, env: oauth(home, 2001, "ended"),
        NOBODY + ".*auth login` has expired",
    ),
    "a damaged sign-in": (
        lambda home, env: write(home / ".kaggle" / "credentials.json", "[]"),
        NOBODY + ".*auth login` has expired",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_missing_or_wrong_credential_is_named(kaggle, tmp_path, monkeypatch, case):
    give, sentence = WRONG[case]
    give(tmp_path / "home", monkeypatch)
    failure(sentence)
    assert not (tmp_path / "data" / "kaggle" / MANIFEST).exists()
