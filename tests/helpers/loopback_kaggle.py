"""Kaggle's download call on loopback, for the real client, and a person's empty home to call it
from.

With KAGGLE_API_ENVIRONMENT=LOCALHOST the client asks http://localhost, and HTTP_PROXY leads that to
the server here.
"""

import base64
import contextlib
import email.utils
import hashlib
import http.server
import io
import json
import logging
import os
import re
import sys
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from ctmri_utils.scans import kaggle as kaggle_download
from ctmri_utils.scans.kaggle import DATASET, download
from ctmri_utils.scans.kaggle_access import DownloadFailed

TOKEN, KEY, USER = "token-0123456789abcdef", "key-0123456789abcdef", "alice"
# The client writes this many bytes at a time, so a new call continues after them.
CHUNK = 2**20
BASIC = "Basic " + base64.b64encode(f"{USER}:{KEY}".encode()).decode()


def slices():
    """A small set in Kaggle's layout: CT as PNG in colour mode, MR as JPEG, 64 x 64 pixels."""
    rng, files = np.random.default_rng(0), {}
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    for folder, count in {"trainA": 4, "trainB": 5, "testA": 3, "testB": 2}.items():
        is_ct = folder.endswith("A")
        rim, inside = (250, 100) if is_ct else (60, 160)
        for i in range(1, count + 1):
            depth = 1 - np.hypot(x / rng.uniform(0.6, 0.9), y / rng.uniform(0.7, 0.95))
            head = np.where(depth < 0.2, rim, inside) + rng.normal(0, 6, y.shape)
            image = Image.fromarray(np.where(depth > 0, head.clip(0, 254), 0).astype(np.uint8))
            buffer = io.BytesIO()
            if is_ct:
                image.convert("RGB").save(buffer, "PNG")
            else:
                image.save(buffer, "JPEG", quality=90)
            name = f"ct{i}.png" if is_ct else f"mri{i}.jpg"
            files[f"Dataset/images/{folder}/{name}"] = buffer.getvalue()
    return files


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), data)
    return buffer.getvalue()


class Kaggle(http.server.ThreadingHTTPServer):
    """The download call of api.kaggle.com.

    `public` says who may download, `drops` how often the storage breaks off in the middle.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = slices()
        self.body = zipped(self.files)
        self.status, self.headers = None, {}
        self.drops, self.public = 0, False
        # The header Authorization of each call, and the first byte of each fetch from the storage.
        self.authorizations, self.starts = [], []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        # A client may hang up.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


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
        self.send(
            status,
            json.dumps(answer).encode(),
            Content_Type="application/json",
            **self.server.headers,
        )

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        authorization = self.headers.get("Authorization")
        call = self.path.rpartition("/")[2]
        if call == "IntrospectToken":
            return self.say(200, active=request["token"] == TOKEN, username=USER)
        if call == "GenerateAccessToken":
            if request["refreshToken"] == KEY:
                return self.say(200, token=TOKEN, expiresIn=3600)
            return self.say(401, code=401, message="ended")
        assert call == "DownloadDataset" and self.path.startswith("http://localhost/api/v1/")
        self.server.authorizations.append(authorization)
        if self.server.status:
            return self.say(self.server.status, code=self.server.status, message="as the test says")
        is_public = self.server.public and authorization is None
        if authorization not in (f"Bearer {TOKEN}", BASIC) and not is_public:
            return self.say(401, code=401, message="Unauthenticated")
        if (request["ownerSlug"], request["datasetSlug"]) != tuple(DATASET.split("/")):
            return self.say(404, code=404, message="no such data set")
        self.send(302, Location=f"http://localhost/storage.zip?signature={KEY}")
        return None

    def do_GET(self):
        body, byte_range = self.server.body, self.headers.get("Range")
        start = int(re.fullmatch(r"bytes=(\d+)-", byte_range)[1]) if byte_range else 0
        self.server.starts.append(start)
        self.send_response(206 if byte_range else 200)
        for name, value in {
            "Content-Length": str(len(body) - start),
            "Content-Type": "application/zip",
            "Accept-Ranges": "bytes",
            "ETag": f'"{hashlib.md5(body).hexdigest()}"',
            "Last-Modified": email.utils.formatdate(1704067200, usegmt=True),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.server.drops:
            self.server.drops -= 1
            self.wfile.write(body[start : start + min(CHUNK, len(body) // 2)])
            self.close_connection = True
            return
        self.wfile.write(body[start:])


def clean_environment(home, url):
    """Environment variables of a person whose HOME holds nothing and whose Kaggle is the server at
    `url`; None is for those to be unset.
    """
    unset = {
        name: None
        for name in os.environ
        if name.startswith(("KAGGLE_", "XDG_")) or name.upper() in ("NO_PROXY", "ALL_PROXY")
    }
    return unset | {
        "HOME": str(home),
        "USERPROFILE": str(home),
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "HTTP_PROXY": url,
        "http_proxy": url,
    }


@contextlib.contextmanager
def served(tmp_path, monkeypatch, capfd, caplog):
    """The server; HOME, data folder and environment of the test's own.

    At the end no secret stands in any output, log or file.
    """
    server = Kaggle()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    (tmp_path / "home" / ".kaggle").mkdir(parents=True)
    for name, value in clean_environment(tmp_path / "home", server.url).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(kaggle_download, "data_folder", lambda: tmp_path / "data")
    # The client waits for seconds before it tries again.
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    caplog.set_level(logging.DEBUG)
    yield server
    server.shutdown()
    server.server_close()
    printed = capfd.readouterr()
    # The client's own messages may hold addresses.
    assert not re.search("Downloading|Connection error|Dataset URL", printed.out)
    texts = [*printed]
    for phase in ("setup", "call"):
        texts += [record.getMessage() for record in caplog.get_records(phase)]
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    texts += [path.read_bytes().decode("latin-1") for path in files]
    assert not [text for text in texts if TOKEN in text or KEY in text]


def failure(sentence):
    """The one sentence with which download() fails, checked to be one, to hold no secret and to be
    free of a cause that might.
    """
    with pytest.raises(DownloadFailed, match=sentence) as caught:
        download()
    text = str(caught.value)
    assert "\n" not in text and TOKEN not in text and KEY not in text
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return text


def sign_in(monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
