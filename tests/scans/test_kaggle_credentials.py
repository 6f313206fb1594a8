"""Credentials from every place that Kaggle's client and Colab know, and a sentence for each one
that is missing or wrong.
"""

import json
import sys
import types

import pytest
from helpers.loopback_kaggle import BASIC, KEY, TOKEN, USER, failure, served

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


def in_kaggle_notebook(home, env):
    env.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    env.setenv("KAGGLE_DATA_PROXY_URL", "x")
    env.setenv("KAGGLE_API_V1_TOKEN", write(home / "v1", TOKEN))


def in_variables(home, env):
    env.setenv("KAGGLE_USERNAME", USER)
    env.setenv("KAGGLE_KEY", KEY)


def in_own_folder(home, env):
    env.setenv("KAGGLE_CONFIG_DIR", str(home / "x"))
    kaggle_json(home / "x")


def key_for_old_file(home, env):
    kaggle_json(home / ".kaggle", json.dumps({"username": USER, "key": "old"}))
    env.setenv("KAGGLE_KEY", KEY)


def token_and_key(home, env):
    kaggle_json(home / ".kaggle")
    env.setenv("KAGGLE_API_TOKEN", TOKEN)


def colab_token_and_key(home, env, token=TOKEN):
    kaggle_json(home / ".kaggle")
    colab(env, KAGGLE_API_TOKEN=token)


# Where a token is found; given (home, monkeypatch).
TOKENS = {
    "a variable": lambda home, env: env.setenv("KAGGLE_API_TOKEN", f"{TOKEN}\n"),
    "a named file": lambda home, env: env.setenv("KAGGLE_API_TOKEN", write(home / "my", TOKEN)),
    "access_token": lambda home, env: write(home / ".kaggle" / "access_token", TOKEN + "\n"),
    "access_token.txt": lambda home, env: write(home / ".kaggle" / "access_token.txt", TOKEN),
    "a Kaggle notebook": in_kaggle_notebook,
    "Colab": lambda home, env: colab(env, KAGGLE_API_TOKEN=f" {TOKEN}\n"),
    "kaggle auth login": lambda home, env: oauth(home, 2999),
    "kaggle auth login, to be renewed": lambda home, env: oauth(home, 2001),
    "before a key": token_and_key,
    "Colab, before a key": colab_token_and_key,
}
# Where a username with its key is found.
KEYS = {
    "variables": in_variables,
    "~/.kaggle/kaggle.json": lambda home, env: kaggle_json(home / ".kaggle"),
    "~/.config/kaggle/kaggle.json": lambda home, env: kaggle_json(home / ".config" / "kaggle"),
    "KAGGLE_CONFIG_DIR": in_own_folder,
    "a key to replace that of the file": key_for_old_file,
    "Colab": lambda home, env: colab(env, KAGGLE_USERNAME=USER, KAGGLE_KEY=KEY),
    "where Colab's token is not shared": lambda home, env: colab_token_and_key(
        home, env, "private"
    ),
}


@pytest.mark.parametrize(
    ("give", "seen"),
    [
        *(pytest.param(give, f"Bearer {TOKEN}", id=f"token: {k}") for k, give in TOKENS.items()),
        *(pytest.param(give, BASIC, id=f"key: {k}") for k, give in KEYS.items()),
    ],
)
def test_a_credential_is_found_in_every_place(kaggle, tmp_path, monkeypatch, give, seen):
    give(tmp_path / "home", monkeypatch)
    download()
    shown = repr(find_credential())
    assert kaggle.authorizations == [seen] and TOKEN not in shown and KEY not in shown


def test_a_public_set_needs_no_credential(kaggle):
    kaggle.public = True
    assert download().is_dir() and kaggle.authorizations == [None]


# What is given, from (home, monkeypatch); what is named.
WRONG = {
    "nothing": (lambda home, env: None, "create a token"),
    "a wrong token": (
        lambda home, env: env.setenv("KAGGLE_API_TOKEN", "wrong"),
        "not accept the variable KAGGLE_API_TOKEN",
    ),
    "a long wrong token": (
        lambda home, env: env.setenv("KAGGLE_API_TOKEN", 99 * KEY),
        "not accept the variable KAGGLE_API_TOKEN",
    ),
    "a wrong token file": (
        lambda home, env: write(home / ".kaggle" / "access_token", "wrong"),
        "not accept ~/.kaggle/access_token",
    ),
    "a wrong key": (
        lambda home, env: kaggle_json(home / ".kaggle", '{"username": "al", "key": "x"}'),
        "not accept .*kaggle.json",
    ),
    "a blank token": (
        lambda home, env: env.setenv("KAGGLE_API_TOKEN", "  "),
        "KAGGLE_API_TOKEN cannot be right",
    ),
    "a torn token": (
        lambda home, env: env.setenv("KAGGLE_API_TOKEN", f"{TOKEN}\n{KEY}"),
        "KAGGLE_API_TOKEN cannot be right",
    ),
    "a torn secret": (
        lambda home, env: colab(env, KAGGLE_USERNAME=USER, KAGGLE_KEY=f"{KEY}é"),
        "Colab secrets .* cannot be right",
    ),
    "an empty token file": (
        lambda home, env: write(home / ".kaggle" / "access_token", ""),
        "access_token is empty",
    ),
    "an empty named file": (
        lambda home, env: env.setenv("KAGGLE_API_TOKEN", write(home / "my", "")),
        "names is empty",
    ),
    "a binary token file": (
        lambda home, env: (home / ".kaggle" / "access_token").write_bytes(b"\xff\xfe\x00"),
        "access_token .* cannot be read",
    ),
    "a folder as token": (
        lambda home, env: env.setenv("KAGGLE_API_TOKEN", str(home)),
        "KAGGLE_API_TOKEN .* cannot be read",
    ),
    "no JSON": (
        lambda home, env: kaggle_json(home / ".config" / "kaggle", "{"),
        "kaggle.json cannot be read",
    ),
    "a list": (
        lambda home, env: kaggle_json(home / ".kaggle", "[1]"),
        "kaggle.json cannot be read",
    ),
    "no text": (
        lambda home, env: (home / ".kaggle" / "kaggle.json").write_bytes(b"\xff\xfe\x00"),
        "kaggle.json cannot be read",
    ),
    "no key": (
        lambda home, env: kaggle_json(home / ".kaggle", '{"username": "alice"}'),
        "kaggle.json lacks a key",
    ),
    "KAGGLE_KEY alone": (
        lambda home, env: env.setenv("KAGGLE_KEY", KEY),
        "KAGGLE_KEY lacks a username",
    ),
    "a secret not shared": (
        lambda home, env: colab(env, KAGGLE_API_TOKEN="private"),
        "KAGGLE_API_TOKEN is not shared",
    ),
    "a secret not told": (
        lambda home, env: colab(env, KAGGLE_API_TOKEN=RuntimeError(KEY)),
        "KAGGLE_API_TOKEN could not be read",
    ),
    "half of the secrets": (
        lambda home, env: colab(env, KAGGLE_USERNAME=USER),
        "KAGGLE_KEY is missing",
    ),
    "an ended sign-in": (lambda home, env: oauth(home, 2001, "ended"), "auth login"),
    "a damaged sign-in": (
        lambda home, env: write(home / ".kaggle" / "credentials.json", "[]"),
        "auth login",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_missing_or_wrong_credential_is_named(kaggle, tmp_path, monkeypatch, case):
    give, sentence = WRONG[case]
    give(tmp_path / "home", monkeypatch)
    failure(sentence)
    assert not (tmp_path / "data" / "kaggle" / MANIFEST).exists()
