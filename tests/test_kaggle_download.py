"""Kaggle's real client against a server on loopback: every credential, every refusal, every way to break off; and no secret anywhere.

With KAGGLE_API_ENVIRONMENT=LOCALHOST the client asks http://localhost, and HTTP_PROXY leads that to the server here.
"""
import base64
import email.utils
import errno
import hashlib
import http.server
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import types
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from ctmri_utils import kaggle_download
from ctmri_utils.__main__ import main
from ctmri_utils.kaggle_download import DATASET, MANIFEST, UNFINISHED, DownloadFailed, download, find_credential
from ctmri_utils.scans import check, load_scans
from ctmri_utils.settings import PROFILES

ROOT = Path(__file__).resolve().parent.parent
TOKEN, KEY, USER = "token-0123456789abcdef", "key-0123456789abcdef", "alice"
CHUNK = 2**20                                                    # what the client writes at a time, and thus what it can build on
BASIC = "Basic " + base64.b64encode(f"{USER}:{KEY}".encode()).decode()


def slices():
    """A small set in Kaggle's layout: CT as PNG in colour mode, MR as JPEG, two sizes."""
    rng, files = np.random.default_rng(0), {}
    for place, count in {"trainA": 4, "trainB": 5, "testA": 3, "testB": 2}.items():
        for i in range(count):
            y, x = np.mgrid[-1:1:64j, -1:1:64j]
            depth = 1 - np.hypot(x / rng.uniform(0.6, 0.9), y / rng.uniform(0.7, 0.95))
            ct = np.where(depth > 0, np.where(depth < 0.2, 250, 100), 0) + rng.normal(0, 6, y.shape) * (depth > 0)
            mri = np.where(depth > 0, np.where(depth < 0.2, 60, 160), 0) + rng.normal(0, 6, y.shape) * (depth > 0)
            image, buffer = np.uint8(np.clip(ct if place.endswith("A") else mri, 0, 254)), io.BytesIO()
            if place.endswith("A"):
                Image.fromarray(np.stack([image] * 3, -1)).save(buffer, "PNG")
            else:
                Image.fromarray(image).save(buffer, "JPEG", quality=90)
            name = f"ct{i + 1}.png" if place.endswith("A") else f"mri{i + 1}.jpg"
            files[f"Dataset/images/{place}/{name}"] = buffer.getvalue()
    return files


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), data)
    return buffer.getvalue()


class Kaggle(http.server.ThreadingHTTPServer):
    """The download call of api.kaggle.com: who may have what, and how often the storage breaks off in the middle."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = slices()
        self.body, self.status, self.headers, self.drops, self.public = zipped(self.files), None, {}, 0, False
        self.asked, self.fetched = [], []                        # Authorization of each call; Range of each fetch from the storage
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def send(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def say(self, status, **answer):
        self.send(status, json.dumps(answer).encode(), Content_Type="application/json", **self.server.headers)

    def do_POST(self):
        request, who = json.loads(self.rfile.read(int(self.headers["Content-Length"]))), self.headers.get("Authorization")
        call = self.path.rpartition("/")[2]
        if call == "IntrospectToken":
            return self.say(200, active=request["token"] == TOKEN, username=USER)
        if call == "GenerateAccessToken":
            known = request["refreshToken"] == KEY
            return self.say(200, token=TOKEN, expiresIn=3600) if known else self.say(401, code=401, message="ended")
        assert call == "DownloadDataset" and self.path.startswith("http://localhost/api/v1/")
        self.server.asked.append(who)
        if self.server.status:
            return self.say(self.server.status, code=self.server.status, message="as told")
        if who not in (f"Bearer {TOKEN}", BASIC) and not (self.server.public and who is None):
            return self.say(401, code=401, message="Unauthenticated")
        if (request["ownerSlug"], request["datasetSlug"]) != tuple(DATASET.split("/")):
            return self.say(404, code=404, message="no such data set")
        self.send(302, Location=f"http://localhost/storage.zip?signature={KEY}")
        return None

    def do_GET(self):
        body, wanted = self.server.body, self.headers.get("Range")
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        self.server.fetched.append(start)
        self.send_response(206 if wanted else 200)
        for name, value in {"Content-Length": str(len(body) - start), "Content-Type": "application/zip", "Accept-Ranges": "bytes",
                            "ETag": f'"{hashlib.md5(body).hexdigest()}"',
                            "Last-Modified": email.utils.formatdate(1704067200, usegmt=True)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.server.drops:
            self.server.drops -= 1
            self.wfile.write(body[start:start + CHUNK])
            self.close_connection = True
            return
        self.wfile.write(body[start:])


def clean_environment(home, url):
    """Environment variables of a person whose HOME holds nothing and whose Kaggle is the server at `url`; None: to be unset."""
    known = {name: None for name in os.environ if name.startswith(("KAGGLE_", "XDG_")) or name.upper() in ("NO_PROXY", "ALL_PROXY")}
    return known | {"HOME": str(home), "USERPROFILE": str(home), "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
                    "HTTP_PROXY": url, "http_proxy": url}


@pytest.fixture
def kaggle(tmp_path, monkeypatch, capfd, caplog):
    """The server; HOME, data folder and environment of the test's own. At the end no secret stands in any output, log or file."""
    server = Kaggle()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    (tmp_path / "home" / ".kaggle").mkdir(parents=True)
    for name, value in clean_environment(tmp_path / "home", server.url).items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    monkeypatch.setattr(kaggle_download, "data_folder", lambda: tmp_path / "data")
    monkeypatch.setattr("time.sleep", lambda seconds: None)      # the client waits for seconds before it tries again
    caplog.set_level(logging.DEBUG)
    yield server
    server.shutdown()
    server.server_close()
    texts = [*capfd.readouterr(), caplog.text]
    texts += [path.read_bytes().decode("latin-1") for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert not [secret for secret in (TOKEN, KEY) for text in texts if secret in text]


def failure(sentence):
    """The one sentence with which download() fails, checked to be one, to hold no secret and to be free of a cause that might."""
    with pytest.raises(DownloadFailed, match=sentence) as caught:
        download()
    text = str(caught.value)
    assert "\n" not in text and TOKEN not in text and KEY not in text
    assert caught.value.__cause__ is None and (caught.value.__suppress_context__ or caught.value.__context__ is None)
    return text


def sign_in(monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)


def bytes_below(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_set_arrives_whole_with_a_manifest_and_a_second_call_does_nothing(kaggle, tmp_path, monkeypatch):
    sign_in(monkeypatch)
    folder, target = download(), tmp_path / "data" / "kaggle"
    assert folder == target / "Dataset" / "images"
    found = bytes_below(target)
    manifest = json.loads(found.pop(MANIFEST))
    assert found == kaggle.files and kaggle.asked == [f"Bearer {TOKEN}"] and kaggle.fetched == [0]
    assert manifest["dataset"] == DATASET and manifest["counts"] == {
        f"Dataset/images/{name}": count for name, count in {"trainA": 4, "trainB": 5, "testA": 3, "testB": 2}.items()}
    assert manifest["files"] == {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in kaggle.files.items()}
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    assert download() == folder and len(kaggle.asked) == 1
    assert before == {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    scans = load_scans("kaggle", PROFILES["ci"], seed=0)
    assert (len(scans.train.ct), len(scans.train.mri), len(scans.test.ct), len(scans.test.mri)) == (4, 5, 3, 2)
    table = str(check(folder))
    assert re.search(r"trainA +4 +PNG +RGB +64x64 .*ct#\.png", table) and re.search(r"testB +2 +JPEG +L +64x64 .*mri#\.jpg", table)
    assert "JPEG on one side" in table and "swapped" not in table


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

    userdata = types.SimpleNamespace(get=get, SecretNotFoundError=SecretNotFoundError, NotebookAccessError=NotebookAccessError)
    package = types.ModuleType("google.colab")
    package.userdata = userdata
    monkeypatch.setitem(sys.modules, "google.colab", package)


def kaggle_json(folder, text=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kaggle.json").write_text(json.dumps({"username": USER, "key": KEY}) if text is None else text)


def oauth(home, expiry, refresh=KEY):
    (home / ".kaggle" / "credentials.json").write_text(json.dumps({
        "refresh_token": refresh, "access_token": TOKEN, "access_token_expiration": f"{expiry}-01-01T00:00:00+00:00", "username": USER}))


def write(path, text):
    path.write_text(text)
    return str(path)


PLACES = {                                                       # how a credential is given, from (home, monkeypatch); what Kaggle sees
    "KAGGLE_API_TOKEN": (lambda home, env: env.setenv("KAGGLE_API_TOKEN", TOKEN), f"Bearer {TOKEN}"),
    "KAGGLE_API_TOKEN, a file": (lambda home, env: env.setenv("KAGGLE_API_TOKEN", write(home / "my", TOKEN + "\n")), f"Bearer {TOKEN}"),
    "access_token": (lambda home, env: write(home / ".kaggle" / "access_token", TOKEN + "\n"), f"Bearer {TOKEN}"),
    "access_token.txt": (lambda home, env: write(home / ".kaggle" / "access_token.txt", TOKEN), f"Bearer {TOKEN}"),
    "a Kaggle notebook": (lambda home, env: [env.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive"), env.setenv("KAGGLE_DATA_PROXY_URL", "x"),
                                             env.setenv("KAGGLE_API_V1_TOKEN", write(home / "v1", TOKEN))], f"Bearer {TOKEN}"),
    "Colab's token": (lambda home, env: colab(env, KAGGLE_API_TOKEN=TOKEN), f"Bearer {TOKEN}"),
    "KAGGLE_USERNAME and KAGGLE_KEY": (lambda home, env: [env.setenv("KAGGLE_USERNAME", USER), env.setenv("KAGGLE_KEY", KEY)], BASIC),
    "~/.kaggle/kaggle.json": (lambda home, env: kaggle_json(home / ".kaggle"), BASIC),
    "~/.config/kaggle/kaggle.json": (lambda home, env: kaggle_json(home / ".config" / "kaggle"), BASIC),
    "KAGGLE_CONFIG_DIR": (lambda home, env: [env.setenv("KAGGLE_CONFIG_DIR", str(home / "x")), kaggle_json(home / "x")], BASIC),
    "a key to replace that of the file": (lambda home, env: [kaggle_json(home / ".kaggle", json.dumps({"username": USER, "key": "old"})),
                                                             env.setenv("KAGGLE_KEY", KEY)], BASIC),
    "Colab's name and key": (lambda home, env: colab(env, KAGGLE_USERNAME=USER, KAGGLE_KEY=KEY), BASIC),
    "kaggle auth login": (lambda home, env: oauth(home, 2999), f"Bearer {TOKEN}"),
    "kaggle auth login, to be renewed": (lambda home, env: oauth(home, 2001), f"Bearer {TOKEN}"),
    "a token before a key": (lambda home, env: [kaggle_json(home / ".kaggle"), env.setenv("KAGGLE_API_TOKEN", TOKEN)],
                             f"Bearer {TOKEN}"),
    "Colab's token before a key": (lambda home, env: [kaggle_json(home / ".kaggle"), colab(env, KAGGLE_API_TOKEN=TOKEN)],
                                   f"Bearer {TOKEN}"),
    "a key where the token is not shared": (lambda home, env: [kaggle_json(home / ".kaggle"), colab(env, KAGGLE_API_TOKEN="private")],
                                            BASIC),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_credential_is_found_in_every_place(kaggle, tmp_path, monkeypatch, place):
    give, seen = PLACES[place]
    give(tmp_path / "home", monkeypatch)
    download()
    assert kaggle.asked == [seen] and TOKEN not in repr(find_credential()) and KEY not in repr(find_credential())


def test_a_public_set_needs_no_credential(kaggle):
    kaggle.public = True
    assert download().is_dir() and kaggle.asked == [None]


NOBODY = r"wants to know who you are \(401\), and no usable credential was found"
REFUSED = "does not accept the variable KAGGLE_API_TOKEN"
WRONG = {                                                        # what is given, from (home, monkeypatch); the sentence
    "nothing": (lambda home, env: None, NOBODY + ": make a token at https://www.kaggle.com/settings/api and put it into"),
    "a wrong token": (lambda home, env: env.setenv("KAGGLE_API_TOKEN", "wrong"), REFUSED + r" \(401\): make a new token"),
    "a long wrong token": (lambda home, env: env.setenv("KAGGLE_API_TOKEN", 99 * KEY), REFUSED),
    "a wrong token file": (lambda home, env: write(home / ".kaggle" / "access_token", "wrong"), "does not accept ~/.kaggle/access_token"),
    "a wrong key": (lambda home, env: kaggle_json(home / ".kaggle", '{"username": "al", "key": "x"}'), r"does not accept .*kaggle\.json"),
    "a blank token": (lambda home, env: env.setenv("KAGGLE_API_TOKEN", "  "), "^the variable KAGGLE_API_TOKEN cannot be right"),
    "a torn token": (lambda home, env: env.setenv("KAGGLE_API_TOKEN", f"{TOKEN}\n{KEY}"), "blanks or letters that no .*copy it again"),
    "a torn secret": (lambda home, env: colab(env, KAGGLE_USERNAME=USER, KAGGLE_KEY=f"{KEY}é"), "^the Colab secrets .* cannot be right"),
    "an empty token file": (lambda home, env: write(home / ".kaggle" / "access_token", ""), NOBODY + ".*access_token is empty"),
    "an empty named file": (lambda home, env: env.setenv("KAGGLE_API_TOKEN", write(home / "my", "")), NOBODY + ".* names is empty"),
    "a binary token file": (lambda home, env: (home / ".kaggle" / "access_token").write_bytes(b"\xff\xfe\x00"), "cannot be read: check"),
    "a folder as token": (lambda home, env: env.setenv("KAGGLE_API_TOKEN", str(home)), "cannot be read: check its permissions"),
    "no JSON": (lambda home, env: kaggle_json(home / ".config" / "kaggle", "{"), r"kaggle\.json cannot be read as JSON.*correct or remove"),
    "a list": (lambda home, env: kaggle_json(home / ".kaggle", "[1]"), r"kaggle\.json cannot be read as JSON"),
    "no text": (lambda home, env: (home / ".kaggle" / "kaggle.json").write_bytes(b"\xff\xfe\x00"), r"kaggle\.json cannot be read as JSON"),
    "no key": (lambda home, env: kaggle_json(home / ".kaggle", '{"username": "alice"}'), NOBODY + r".*kaggle\.json lacks a key"),
    "KAGGLE_KEY alone": (lambda home, env: env.setenv("KAGGLE_KEY", KEY), NOBODY + ".*the variable KAGGLE_KEY lacks a username"),
    "a secret not shared": (lambda home, env: colab(env, KAGGLE_API_TOKEN="private"), NOBODY + ".*switch on its notebook access"),
    "a secret not told": (lambda home, env: colab(env, KAGGLE_API_TOKEN=RuntimeError(KEY)), "secret KAGGLE_API_TOKEN could not be read"),
    "half of the secrets": (lambda home, env: colab(env, KAGGLE_USERNAME=USER), NOBODY + ".*the Colab secret KAGGLE_KEY is missing"),
    "an ended sign-in": (lambda home, env: oauth(home, 2001, "ended"), NOBODY + ".*auth login` has expired"),
    "a damaged sign-in": (lambda home, env: write(home / ".kaggle" / "credentials.json", "[]"), NOBODY + ".*auth login` has expired"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_missing_or_wrong_credential_is_named(kaggle, tmp_path, monkeypatch, case):
    give, sentence = WRONG[case]
    give(tmp_path / "home", monkeypatch)
    failure(sentence)
    assert not (tmp_path / "data" / "kaggle" / MANIFEST).exists()


@pytest.mark.parametrize(("status", "headers", "sentence"), [
    (401, {}, r"does not accept the variable KAGGLE_API_TOKEN \(401\)"), (403, {}, r"does not give this data set to .*\(403\): sign in at"),
    (404, {}, r"has no data set .* any more \(404\)"), (429, {}, r"asks for a pause .*repeat in some minutes"),
    (429, {"Retry-After": "30"}, "repeat in 30 seconds"), (500, {}, r"answered with an error \(500\): repeat later"),
    (503, {}, r"answered with an error \(503\)")])
def test_what_kaggle_refuses_is_said(kaggle, monkeypatch, status, headers, sentence):
    sign_in(monkeypatch)
    kaggle.status, kaggle.headers = status, headers
    failure(sentence)
    kaggle.status = None
    assert download().is_dir()


def test_no_network_is_said(kaggle, monkeypatch):
    sign_in(monkeypatch)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")           # nobody listens there
    failure("the connection to Kaggle failed or broke off: check the network and repeat")


def test_a_connection_that_breaks_off_once_is_taken_up_again(kaggle, monkeypatch):
    sign_in(monkeypatch)
    kaggle.body, kaggle.drops = zipped({**kaggle.files, "noise.bin": np.random.default_rng(0).bytes(2 * CHUNK)}), 1
    download()
    assert kaggle.fetched == [0, CHUNK]


def test_a_connection_that_keeps_breaking_is_said_and_the_next_call_continues(kaggle, tmp_path, monkeypatch):
    sign_in(monkeypatch)
    kaggle.body, kaggle.drops = zipped({**kaggle.files, "noise.bin": np.random.default_rng(0).bytes(5 * CHUNK)}), 4
    failure("failed or broke off")
    assert kaggle.fetched == [0, CHUNK, 2 * CHUNK, 3 * CHUNK]
    with pytest.raises(FileNotFoundError, match=r"kaggle holds an unfinished download: run `python -m ctmri_utils download`"):
        load_scans("kaggle", PROFILES["ci"], seed=0)
    assert download().is_dir() and kaggle.fetched[4:] == [0, 4 * CHUNK] and not (tmp_path / "data" / "kaggle" / UNFINISHED).exists()


@pytest.mark.parametrize("step", ["unpacking", "moving", "manifest"])
def test_an_interruption_is_seen_and_repeated_without_fetching_again(kaggle, tmp_path, monkeypatch, step):
    sign_in(monkeypatch)
    target = tmp_path / "data" / "kaggle"
    with monkeypatch.context() as interrupted:
        calls = []

        def stop_at_the_fifth(*arguments, act=os.replace if step == "moving" else os.fspath):
            calls.append(arguments)
            if len(calls) == 5:
                raise KeyboardInterrupt
            return act(*arguments) if step == "moving" else {"bytes": 0}

        places = {"unpacking": "ctmri_utils.archives._extract", "moving": "os.replace", "manifest": "json.dumps"}
        if step == "manifest":
            calls += [()] * 4
            dumps = json.dumps
            interrupted.setattr("json.dumps", lambda record, **kw: stop_at_the_fifth() if "counts" in record else dumps(record, **kw))
        else:
            interrupted.setattr(places[step], stop_at_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            download()
    assert not (target / MANIFEST).exists()
    with pytest.raises(FileNotFoundError, match="unfinished download"):
        load_scans("kaggle", PROFILES["ci"], seed=0)
    download()
    found = bytes_below(target)
    del found[MANIFEST]
    assert found == kaggle.files and len(kaggle.asked) == 2 and sorted(os.listdir(target)) == ["Dataset", MANIFEST]


@pytest.mark.parametrize("damage", [
    lambda target: next(target.rglob("ct1.png")).unlink(), lambda target: next(target.rglob("ct1.png")).write_bytes(b"cut"),
    lambda target: (target / MANIFEST).write_text("{}"), lambda target: (target / MANIFEST).write_text("[1]"),
    lambda target: (target / MANIFEST).write_bytes(b"\xff"), lambda target: (target / MANIFEST).unlink()])
def test_what_is_missing_or_changed_is_fetched_again_and_other_files_are_kept(kaggle, tmp_path, monkeypatch, damage):
    sign_in(monkeypatch)
    target = tmp_path / "data" / "kaggle"
    download()
    (target / "notes.txt").write_text("mine")
    damage(target)
    download()
    found = bytes_below(target)
    assert found.pop("notes.txt") == b"mine" and found.pop(MANIFEST) and found == kaggle.files and len(kaggle.asked) == 2


def test_a_full_disk_is_said_before_and_while_writing(kaggle, tmp_path, monkeypatch):
    sign_in(monkeypatch)
    usage = shutil.disk_usage
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda path: usage(path)._replace(free=1000))
        failure(r"the disk of .*kaggle is full \(0\.00 GB are needed, 0\.00 GB are left\): make room")
        assert kaggle.fetched == [0] and not list((tmp_path / "data").rglob("*.zip"))
    with monkeypatch.context() as full:
        full.setattr(zipfile.ZipExtFile, "read", lambda *args: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
        failure(r"is full \(No space left on device\): make room and repeat, what was fetched is kept")
    assert download().is_dir() and kaggle.fetched == [0] * 3     # the last time only the head of the answer was looked at


def test_a_folder_that_cannot_be_written_is_said(kaggle, tmp_path, monkeypatch):
    sign_in(monkeypatch)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kaggle").write_text("a file")
    failure(r"data.kaggle cannot be written \(.+\): check its permissions")


def test_an_absurd_size_is_refused_before_it_is_fetched(kaggle, tmp_path, monkeypatch):
    sign_in(monkeypatch)
    monkeypatch.setattr(kaggle_download, "MOST_BYTES", 1000)
    failure("Kaggle offers 0 GB, far more than this data set has")
    assert not list((tmp_path / "data").rglob("*.zip"))


@pytest.mark.parametrize(("body", "sentence"), [
    (b"<html>Please sign in to the network</html>", r"the zip is damaged or refused \(File is not a zip file\)"),
    (zipped(slices())[:-3000], "the zip is damaged or refused"),
    (zipped({"../../evil.png": b"x"}), r"'../../evil.png' has a path that leads elsewhere"),
    (zipped({f"{UNFINISHED}/x": b"x"}), "leads elsewhere"), (zipped({MANIFEST: b"{}"}), "leads elsewhere"),
    (zipped({"Dataset/images/trainA/ct1.png": b"x"}), "holds no trainA, trainB, testA, testB")])
def test_a_bad_zip_is_refused_and_deleted_so_that_it_is_fetched_again(kaggle, tmp_path, monkeypatch, body, sentence):
    sign_in(monkeypatch)
    good, kaggle.body = kaggle.body, body
    assert "what Kaggle sent is not the data set" in failure(sentence)
    assert not list(tmp_path.rglob("evil*")) and not list(tmp_path.rglob("*.zip"))
    kaggle.body = good
    assert download().is_dir()


def test_a_missing_client_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglesdk", None)
    with pytest.raises(ModuleNotFoundError, match=r"downloading needs .*: pip install 'ctmri-utils\[course\]'"):
        kaggle_download.client()


def test_an_old_client_that_ends_the_program_is_said(monkeypatch):
    class Old:
        def find_spec(self, name, path=None, target=None):
            if name.startswith("kaggle.api"):
                sys.exit(1)

    monkeypatch.setattr(sys, "meta_path", [Old(), *sys.meta_path])
    for name in [name for name in sys.modules if name.startswith("kaggle.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(DownloadFailed, match="pip install --upgrade kaggle"):
        kaggle_download.client()


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A checkout of its own, so that a real command downloads into its data folder and not into ours."""
    place = tmp_path_factory.mktemp("checkout")
    for name in ("ctmri_utils", "data", "notebooks"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("kaggle", "__pycache__", "pictures"))
    shutil.copy(ROOT / "pyproject.toml", place)
    return place


def run(copy, home, server, *arguments, **variables):
    """`python -m ctmri_utils ARGUMENTS` in the copy, as that person; (status, all that it printed)."""
    wanted = {**os.environ, **clean_environment(home, server.url), "PYTHONPATH": str(copy), "CTMRI_BUILD": str(copy / "build"), **variables}
    done = subprocess.run([sys.executable, "-m", "ctmri_utils", *arguments], cwd=copy, capture_output=True, text=True,
                          env={name: value for name, value in wanted.items() if value is not None})
    assert TOKEN not in done.stdout + done.stderr and KEY not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


def test_the_commands_download_check_and_refuse(kaggle, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path / "build"))
    assert main(["download"]) == 1
    said = capfd.readouterr().err
    assert said.startswith("download: Kaggle wants to know who you are (401)") and said.count("\n") == 1
    sign_in(monkeypatch)
    assert main(["download"]) == 0
    assert re.search(r'use DATASET="kaggle"\..*trainB +5 +JPEG', capfd.readouterr().out, re.S)
    folder = str(tmp_path / "data" / "kaggle")
    assert main(["check", folder]) == 0 and main(["check", folder, "--strict"]) == 1 and (tmp_path / "build" / "check-kaggle.png").is_file()
    assert "JPEG on one side" in capfd.readouterr().out


def test_a_real_process_that_is_told_to_be_verbose_prints_no_secret(kaggle, tmp_path, copy):
    status, printed = run(copy, tmp_path / "home", kaggle, "download", KAGGLE_API_TOKEN=TOKEN, VERBOSE="true")
    assert status == 0 and "trainA" in printed and "DEBUG:" in printed and "100%" in printed
    shutil.rmtree(copy / "data" / "kaggle")


def test_lesson_01_downloads_and_shows_the_set_as_written(kaggle, tmp_path, copy):
    status, printed = run(copy, tmp_path / "home", kaggle, "course", "--profile", "ci", "--lessons", "1", "-p", "DATASET", "kaggle",
                          KAGGLE_API_TOKEN=TOKEN)
    assert status == 0, printed
    lesson = (copy / "build" / "01_meet_the_scans.ipynb").read_text(encoding="utf-8")
    assert TOKEN not in lesson and KEY not in lesson and (copy / "data" / "kaggle" / MANIFEST).is_file()
    texts = "".join(output.get("text", "") for cell in nbformat.reads(lesson, 4).cells for output in cell.get("outputs", []))
    assert "JPEG on one side" in texts and "images: 64 x 64 pixels of unknown size, CT in grey level" in texts
