"""Files come from the hub's cache or from a server in the hub's place; a lack is one clear line."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from replicate.models.hub import sha256
from tests.conftest import ROOT

GPT2, COMMIT = "openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e"
IMDB, TABLE = "stanfordnlp/imdb", "plain_text/train-00000-of-00001.parquet"
TOKEN = "hf_" + "secret" * 5
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = "model.safetensors.index.json"
CALL = """
import sys
from replicate.errors import UserError
from replicate.models import hub
try:
    print(getattr(hub, sys.argv[1])(*sys.argv[2:]))
except UserError as error:
    sys.exit(f"error: {error}")
"""


def call(
    function: str, *arguments: str, home: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Calls a function of `hub` in a process whose HF_HOME is `home`."""
    defaults = {"PYTHONPATH": str(ROOT), "HF_HOME": str(home), "HF_TOKEN": TOKEN}
    defaults |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    return subprocess.run(
        [sys.executable, "-c", CALL, function, *arguments],
        env=os.environ | defaults | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def told(done: subprocess.CompletedProcess[str], says: str) -> None:
    """All that was printed is one line, which begins with this and holds no token."""
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith(f"error: {says}")
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert TOKEN not in done.stderr


def snapshot(home: Path, files: dict[str, str], kind: str = "model", name: str = GPT2) -> Path:
    """Makes a repository in the layout of the hub's cache."""
    folder = home / "hub" / f"{kind}s--{name.replace('/', '--')}" / "snapshots" / COMMIT
    for file, content in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content)
    return folder


def index(*shards: object) -> str:
    return json.dumps({"weight_map": {f"weight {i}": shard for i, shard in enumerate(shards)}})


@pytest.mark.parametrize("files", [["model.safetensors"], [INDEX, *SHARDS]])
def test_what_the_cache_holds_is_used_without_a_request(tmp_path: Path, files: list[str]) -> None:
    folder = snapshot(tmp_path, {name: index(*SHARDS) for name in ["config.json", *files]})
    assert call("weights", GPT2, COMMIT, home=tmp_path).stdout.strip() == str(folder)
    assert call("cached", GPT2, COMMIT, home=tmp_path).stdout.strip() == "True"
    folder = snapshot(tmp_path, {TABLE: ""}, "dataset", IMDB)
    found = call("file", IMDB, COMMIT, TABLE, "dataset", home=tmp_path)
    assert found.stdout.strip() == str(folder / TABLE)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set; unset it, or copy the cache"),
        ({}, "the hub cannot be reached (ConnectError); check the network"),
    ],
    ids=["offline", "unreachable"],
)
def test_a_hub_that_cannot_be_reached_is_told_with_the_file_that_the_cache_lacks(
    tmp_path: Path, network: dict[str, str], says: str
) -> None:
    lack = f"not in the local cache, and {says}"
    done = call("file", IMDB, COMMIT, TABLE, "dataset", home=tmp_path, **network)
    told(done, f"{IMDB}@607a30d7: {TABLE}: {lack}")
    snapshot(tmp_path, {"config.json": "", INDEX: index(*SHARDS), SHARDS[0]: ""})
    done = call("weights", GPT2, COMMIT, home=tmp_path, **network)
    told(done, f"{GPT2}@607a30d7: {SHARDS[1]}: {lack}")
    other = call("weights", GPT2, "f" * 40, home=tmp_path, **network)  # another revision
    told(other, f"{GPT2}@ffffffff: config.json: {lack}")
    assert call("cached", GPT2, "f" * 40, home=tmp_path).stdout.strip() == "False"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (index(SHARDS[0], f"../{COMMIT}/{SHARDS[1]}"), f"names '../{COMMIT}/{SHARDS[1]}', which"),
        (index("pytorch_model.bin"), "names 'pytorch_model.bin', which is no safetensors file"),
        ("{", "is no index of weights; remove it"),
        ("[]", "is no index of weights; remove it"),
        (index(3), "names '3', which is no safetensors file"),
    ],
)
def test_an_index_that_names_other_files_is_refused(
    tmp_path: Path, content: str, says: str
) -> None:
    files = {"config.json": "", INDEX: content, "pytorch_model.bin": "", SHARDS[0]: ""}
    folder = snapshot(tmp_path, files)
    told(call("weights", GPT2, COMMIT, home=tmp_path), f"{folder / INDEX}: {says}")


@contextmanager
def serving(respond: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server in the hub's place, and its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            respond(self)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Prints no line per request."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def answer(
    request: BaseHTTPRequestHandler,
    status: int,
    headers: Mapping[str, str | None],
    body: bytes = b"",
) -> None:
    request.send_response(status)
    for name, value in ({"Content-Length": str(len(body)), **headers}).items():
        if value is not None:
            request.send_header(name, value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body)


LICENCE = f"accept the licence on the page of {GPT2}"
REFUSALS = [
    ("", 401, "GatedRepo", "Please log in.", f"access is gated; {LICENCE}"),
    (TOKEN, 401, None, "Invalid credentials", "the hub does not accept the token"),
    (TOKEN, 401, "GatedRepo", "Invalid user token.", "the hub does not accept the token"),
    ("hf_sécret", 200, None, None, "the hub does not accept the token"),
    (TOKEN, 403, "GatedRepo", "Not authorized.", "access is gated, and the token's account"),
    (TOKEN, 403, "GatedRepo", "It is awaiting a review.", "access is asked for, but not granted"),
    (TOKEN, 403, None, "Please enable access.", "the token may not read it"),
    ("", 401, "RepoNotFound", "Invalid password.", "no such repository, or a private one"),
    (TOKEN, 404, "RepoNotFound", "Not found", "no such repository, or a private one"),
    (TOKEN, 404, "RevisionNotFound", "Invalid rev id", "no such revision; pin one"),
    (TOKEN, 404, "EntryNotFound", "Not found", "no file config.json at this revision; pin one"),
    (TOKEN, 500, None, None, "the hub answers 500; run the same command again later"),
]


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("function", ["file", "weights"])
def test_what_the_hub_refuses_is_one_line_with_the_remedy(
    tmp_path: Path, function: str, refusal: tuple[str, int, str | None, str | None, str]
) -> None:
    token, status, code, message, says = refusal
    name = ["config.json"] if function == "file" else []
    headers = {"X-Error-Code": code, "X-Error-Message": message}
    with serving(lambda request: answer(request, status, headers)) as endpoint:
        environment = {"HF_ENDPOINT": endpoint, "HF_TOKEN": token}
        done = call(function, GPT2, COMMIT, *name, home=tmp_path, **environment)
    told(done, f"{GPT2}@607a30d7: {says}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("HTTPS_PROXY", "odd://127.0.0.1:9"),
        ("ALL_PROXY", "socks://127.0.0.1:9"),
        ("SSL_CERT_FILE", "/none.pem"),
        ("SSL_CERT_FILE", os.devnull),
    ],
)
@pytest.mark.fault("B9")
def test_a_network_that_no_client_can_use_is_told(tmp_path: Path, name: str, value: str) -> None:
    done = call("weights", GPT2, COMMIT, home=tmp_path, **{name: value})
    told(done, f"{GPT2}@607a30d7: config.json: not in the local cache, and the hub cannot be")
    assert name in done.stderr.partition("; correct or unset ")[2]
    snapshot(tmp_path, {"config.json": "", "model.safetensors": ""})
    assert call("weights", GPT2, COMMIT, home=tmp_path, **{name: value}).returncode == 0


@pytest.mark.fault("B9")
@pytest.mark.parametrize("name", ["HF_HOME", "HF_HUB_CACHE"])
def test_a_file_where_the_cache_should_be_is_told_with_the_variable(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").touch()
    with serving(Hub({"config.json": b"{}"})) as endpoint:
        given = {"HF_ENDPOINT": endpoint, name: str(tmp_path / "file")}
        done = call("file", GPT2, COMMIT, "config.json", home=tmp_path, **given)
    told(done, str(tmp_path / "file"))
    assert f"; correct {name}" in done.stderr


def test_a_name_that_no_repository_can_have_is_told(tmp_path: Path) -> None:
    done = call("weights", "a--b/c", COMMIT, home=tmp_path)
    told(done, "a--b/c: Cannot have -- or .. in repo_id")


class Hub:
    """Serves the files of one commit as the hub does, the large ones from another host.

    While `broken`, that host stops in the middle of a file.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.broken = files, False
        self.seen: list[tuple[str, str | None]] = []

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.seen.append((path, request.headers["Authorization"]))
        if "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                for name, data in self.files.items()
            ]
            answer(request, 200, {"Content-Type": "application/json"}, json.dumps(tree).encode())
            return
        name = path.partition(f"{COMMIT}/")[2]
        data = self.files[name]
        tag = f'"{hashlib.sha256(data).hexdigest()}"'
        commit = {"X-Repo-Commit": COMMIT}
        if path.startswith("/elsewhere/"):
            sent = data[: len(data) // 2] if self.broken else data
            answer(request, 200, {"Content-Length": str(len(data))}, sent)
        elif name.endswith(".safetensors"):
            port = request.headers["Host"].rsplit(":", 1)[1]
            linked = {"X-Linked-Etag": tag, "X-Linked-Size": str(len(data))}
            to = {"Location": f"http://localhost:{port}/elsewhere/{COMMIT}/{name}"}
            answer(request, 302, commit | linked | to)
        else:
            answer(request, 200, commit | {"ETag": tag}, data)


def test_a_download_that_was_cut_is_told_and_the_token_stays_with_the_hub(tmp_path: Path) -> None:
    weights = os.urandom(3 << 20)
    wanted = {"config.json": b"{}", "model.safetensors": weights}
    others = dict.fromkeys(["pytorch_model.bin", "onnx/model.safetensors", "run.py"], b"no")
    hub = Hub(wanted | others)
    with serving(hub) as endpoint:
        hub.broken = True
        done = call("weights", GPT2, COMMIT, home=tmp_path, HF_ENDPOINT=endpoint)
        told(done, f"{GPT2}@607a30d7: weights: not in the local cache, and the hub cannot be")
        hub.broken = False
        done = call("weights", GPT2, COMMIT, home=tmp_path, HF_ENDPOINT=endpoint)
        assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert {str(file.relative_to(folder)) for file in folder.rglob("*")} == set(wanted)
    assert (folder / "model.safetensors").read_bytes() == weights
    assert sha256(folder / "model.safetensors") == hashlib.sha256(weights).hexdigest()
    assert {token for path, token in hub.seen if path.startswith("/elsewhere/")} == {None}
    assert {token for path, token in hub.seen if "/resolve/" in path} == {f"Bearer {TOKEN}"}
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not any(TOKEN.encode() in file.read_bytes() for file in written)
    again = call("weights", GPT2, COMMIT, home=tmp_path)  # the server is gone
    assert again.stdout == done.stdout
