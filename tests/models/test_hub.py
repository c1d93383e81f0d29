"""The real loading code on small repositories in the hub's cache layout, and against a server in
the hub's place.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import yaml
from pyarrow import parquet

from replicate.data import windows
from replicate.models import loading as models
from tests.conftest import ROOT, replicate

PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
TEXTS = [
    f"The film number {i} is long, and the story of it is {word}. " * 30
    for i, word in enumerate(["dull", "warm", "odd"] * 20)
]
TOKEN = "hf_" + "secret" * 5
LLAMA = "meta-llama/Llama-2-7b-hf"


def repository(cache: Path, kind: str, name: str, revision: str) -> Path:
    """An empty snapshot folder where huggingface_hub looks for it."""
    folder = cache / f"{kind}s--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision)
    snapshot = folder / "snapshots" / revision
    snapshot.mkdir(parents=True)
    return snapshot


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """HF_HOME with GPT-2's repository (a tiny model of its architecture, and a tokenizer) and
    IMDB's.
    """
    hub = tmp_path / "home" / "hub"
    gpt2 = PARAMS["models"]["gpt2"]
    snapshot = repository(hub, "model", gpt2["repository"], gpt2["revision"])
    tokenizer = windows.train_tokenizer(TEXTS, 300)
    tokenizer.save(str(snapshot / "tokenizer.json"))
    torch.manual_seed(0)
    models.build("gpt2", layers=1, width=32, heads=2, vocabulary=300, length=200).save_pretrained(
        snapshot
    )
    (snapshot / "pytorch_model.bin").write_bytes(b"never read")
    imdb = PARAMS["corpora"]["imdb"]
    snapshot = repository(hub, "dataset", imdb["repository"], imdb["revision"])
    (snapshot / imdb["file"]).parent.mkdir(parents=True)
    parquet.write_table(
        pa.table({"text": TEXTS, "label": [0] * len(TEXTS)}), snapshot / imdb["file"]
    )
    return tmp_path / "home"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project" / "none").mkdir(parents=True)
    (tmp_path / "project" / "params.yaml").write_text(
        (ROOT / "params.yaml").read_text(encoding="utf-8")
    )
    return tmp_path / "project"


def told(done: subprocess.CompletedProcess[str], says: str) -> None:
    """The command failed, and all it printed, but for progress, is one line that begins with
    this.
    """
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("extract ")]
    assert said[0].startswith(f"error: {says}")
    assert (done.stdout, len(said)) == ("", 1)


def secret(token: str, done: subprocess.CompletedProcess[str], folder: Path) -> None:
    """The token is neither in what the command printed nor in a file that it left."""
    assert token not in done.stdout + done.stderr
    assert not [
        file for file in folder.rglob("*") if file.is_file() and token.encode() in file.read_bytes()
    ]


def test_a_filled_cache_serves_the_paper_study_offline(cache: Path, project: Path) -> None:
    """extract, pretrain and baseline of gpt2, from the pinned revisions, without network."""
    offline = {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    for arguments in (
        ("extract", "gpt2", "windows"),
        ("pretrain", "gpt2", "windows", "weights", "log"),
        ("baseline", "gpt2", "windows", "weights", "baseline"),
    ):
        done = replicate(*arguments, cwd=project, **offline)
        assert done.returncode == 0, done.stderr
    statistics = json.loads((project / "windows" / "statistics.json").read_text())
    assert (statistics["reviews"], statistics["length"]) == (60, 200)
    manifest = json.loads((project / "weights" / "manifest.json").read_text())
    assert manifest["revision"] == PARAMS["models"]["gpt2"]["revision"]
    assert "model.safetensors" in manifest["files"]
    report = json.loads((project / "baseline" / "baseline.json").read_text())
    assert 0 < report["loss"] < 12
    assert (
        report["parameters"]
        == report["sampled_parameters"]
        == 300 * 32 + 200 * 32 + 12 * 32 * 32 + 13 * 32 + 2 * 32
    )


def test_another_revision_in_the_cache_is_not_taken(cache: Path, project: Path) -> None:
    old = PARAMS["models"]["gpt2"]["revision"]
    params = project / "params.yaml"
    params.write_text(params.read_text().replace(old, "f" * 40))
    done = replicate(
        "pretrain",
        "gpt2",
        "none",
        "weights",
        "log",
        cwd=project,
        HF_HOME=str(cache),
        HF_HUB_OFFLINE="1",
    )
    told(
        done,
        "openai-community/gpt2@ffffffff: not in the local cache, and the hub cannot be reached while HF_HUB_OFFLINE is set",
    )
    assert not (project / "weights").exists()


NETWORKS = [
    (
        {"HF_HUB_OFFLINE": "1"},
        "while HF_HUB_OFFLINE is set; unset it and run the same command again",
    ),
    ({"HF_HUB_OFFLINE": "0"}, "(127.0.0.1: ConnectError); connect and run the same command again"),
]


@pytest.mark.parametrize(("network", "says"), NETWORKS, ids=["offline", "unreachable"])
def test_a_hub_that_cannot_be_reached_is_told(
    project: Path, tmp_path: Path, network: dict[str, str], says: str
) -> None:
    home = str(tmp_path / "home")
    done = replicate(
        "extract",
        "gpt2",
        "out",
        cwd=project,
        HF_ENDPOINT="http://127.0.0.1:9",
        HF_HOME=home,
        HF_TOKEN=TOKEN,
        **network,
    )
    told(
        done,
        f"stanfordnlp/imdb@e6281661: not in the local cache, and the hub cannot be reached {says}, or copy the cache",
    )
    secret(TOKEN, done, tmp_path)


def sharded(cache: Path, shards: list[str]) -> None:
    """GPT-2's repository again, with an index of these shards in the place of the weights."""
    gpt2 = PARAMS["models"]["gpt2"]
    snapshot = (
        cache
        / "hub"
        / f"models--{gpt2['repository'].replace('/', '--')}"
        / "snapshots"
        / gpt2["revision"]
    )
    (snapshot / "model.safetensors").rename(snapshot / "model-00001-of-00002.safetensors")
    index = {"weight_map": {f"weight {i}": shard for i, shard in enumerate(shards)}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(("network", "says"), NETWORKS, ids=["offline", "unreachable"])
def test_a_shard_that_the_cache_lacks_is_named(
    cache: Path, project: Path, network: dict[str, str], says: str
) -> None:
    sharded(cache, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"])
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(cache), **network}
    done = replicate("pretrain", "gpt2", "none", "weights", "log", cwd=project, **environment)
    lack = "only partly in the local cache (model-00002-of-00002.safetensors is missing), and the hub cannot be reached"
    told(done, f"openai-community/gpt2@607a30d7: {lack} {says}, it resumes")
    assert not (project / "weights").exists()


def test_a_file_of_which_the_cache_has_a_part_is_named(project: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "home" / "hub" / "datasets--stanfordnlp--imdb" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{'0' * 64}.incomplete").write_bytes(b"some")
    done = replicate(
        "extract", "gpt2", "out", cwd=project, HF_HOME=str(tmp_path / "home"), HF_HUB_OFFLINE="1"
    )
    lack = "only partly in the local cache (plain_text/train-00000-of-00001.parquet is missing)"
    told(
        done,
        f"stanfordnlp/imdb@e6281661: {lack}, and the hub cannot be reached while HF_HUB_OFFLINE is set; unset it",
    )
    assert "it resumes" in done.stderr


def test_a_shard_outside_the_folder_is_refused(cache: Path, project: Path) -> None:
    outside = "../607a30d783dfa663caf39e06633721c8d4cfcd7e/model-00001-of-00002.safetensors"
    sharded(cache, ["model-00001-of-00002.safetensors", outside])
    done = replicate(
        "pretrain",
        "gpt2",
        "none",
        "weights",
        "log",
        cwd=project,
        HF_HOME=str(cache),
        HF_HUB_OFFLINE="1",
    )
    told(
        done,
        f"openai-community/gpt2@607a30d7: model.safetensors.index.json names {outside!r}, no safetensors beside it",
    )


@contextmanager
def serving(respond: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server in the hub's place, and its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            respond(self)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """No line per request."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def answer(
    request: BaseHTTPRequestHandler, status: int, headers: dict[str, str | None], body: bytes = b""
) -> None:
    request.send_response(status)
    for name, value in ({"Content-Length": str(len(body))} | headers).items():
        if value is not None:
            request.send_header(name, value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body)


@pytest.mark.parametrize(
    ("token", "status", "code", "message", "says"),
    [
        (
            "",
            401,
            "GatedRepo",
            "Please log in.",
            f"access is gated, and no token is given; accept the licence on the page of {LLAMA}",
        ),
        (
            TOKEN,
            401,
            None,
            "Invalid credentials in Authorization header",
            "the hub does not accept the token, it is wrong or expired",
        ),
        (
            TOKEN,
            401,
            "GatedRepo",
            "Invalid user token.",
            "the hub does not accept the token, it is wrong or expired",
        ),
        ("hf_sécret", 200, None, None, "the hub does not accept the token, it is wrong or expired"),
        (
            TOKEN,
            403,
            "GatedRepo",
            "You are not in the authorized list.",
            "access is gated, and the account of the token has not accepted",
        ),
        (
            TOKEN,
            403,
            "GatedRepo",
            "Your request is awaiting a review from the repo authors.",
            "access is asked for, but not granted yet",
        ),
        (
            TOKEN,
            403,
            None,
            "Please enable access to public gated repositories.",
            "the token may not read it",
        ),
        (
            "",
            401,
            "RepoNotFound",
            "Invalid username or password.",
            "no such repository, or a private one",
        ),
        (
            TOKEN,
            404,
            "RepoNotFound",
            "Repository not found",
            "no such repository, or a private one",
        ),
        (
            TOKEN,
            404,
            "RevisionNotFound",
            "Invalid rev id",
            "no such revision; pin one that the repository has",
        ),
        (
            TOKEN,
            404,
            "EntryNotFound",
            "Entry not found",
            "no such file at this revision, tokenizer.json; pin one that has it",
        ),
        (TOKEN, 503, None, None, "the hub answers 503; run the same command again later"),
    ],
)
def test_what_the_hub_refuses_is_one_line_with_the_remedy(
    project: Path,
    tmp_path: Path,
    token: str,
    status: int,
    code: str | None,
    message: str | None,
    says: str,
) -> None:
    params = project / "params.yaml"
    imdb = "corpus: imdb\n    tokenizer: llama2"
    params.write_text(
        params.read_text()
        .replace(imdb, "corpus: films\n    tokenizer: llama2")
        .replace("reviews: 25000", "reviews: 10")
    )
    home = str(tmp_path / "home")
    with serving(
        lambda request: answer(request, status, {"X-Error-Code": code, "X-Error-Message": message})
    ) as endpoint:
        done = replicate(
            "extract",
            "llama2",
            "out",
            cwd=project,
            HF_ENDPOINT=endpoint,
            HF_HOME=home,
            HF_TOKEN=token,
        )
    told(done, f"{LLAMA}@01c7f73d: {says}")
    secret(token or TOKEN, done, tmp_path)
    assert not (project / "out").exists()


class Hub:
    """Serves files of one commit as the hub does: large ones from another host, which while
    `broken` stops half-way, then answers 503.
    """

    def __init__(self, commit: str, files: dict[str, bytes]) -> None:
        self.commit, self.files, self.broken = commit, files, False
        self.seen: list[tuple[str, str, Message]] = []

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        self.seen.append((request.command, request.path, request.headers))
        name = request.path.rsplit("/", 1)[1]
        data = self.files.get(name)
        if data is None:
            return answer(request, 404, {"X-Error-Code": "EntryNotFound"})
        tag = f'"{hashlib.sha256(data).hexdigest()}"'
        if not name.endswith((".safetensors", ".parquet")):
            return answer(request, 200, {"ETag": tag, "X-Repo-Commit": self.commit}, data)
        if not request.path.startswith("/elsewhere/"):
            elsewhere = (
                f"http://localhost:{request.headers['Host'].rsplit(':', 1)[1]}/elsewhere/{name}"
            )
            linked = {
                "X-Linked-Etag": tag,
                "X-Linked-Size": str(len(data)),
                "X-Repo-Commit": self.commit,
            }
            return answer(request, 302, {"Location": elsewhere, **linked})
        if self.broken and len(self.ranges()) > 1:
            return answer(request, 503, {})
        if self.broken:
            return answer(request, 200, {"Content-Length": str(len(data))}, data[: len(data) // 2])
        start = int(
            (request.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-")
        )
        span: dict[str, str | None] = (
            {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        )
        return answer(request, 206 if start else 200, span, data[start:])

    def ranges(self) -> list[str | None]:
        """What was asked for of the large files, in order."""
        return [
            headers["Range"]
            for command, path, headers in self.seen
            if command == "GET" and path.startswith("/elsewhere/")
        ]


def test_a_download_that_was_cut_resumes_and_the_token_stays_with_the_hub(
    project: Path, tmp_path: Path
) -> None:
    gpt2 = PARAMS["models"]["gpt2"]
    weights = random.Random(0).randbytes(24 << 20)  # huggingface_hub writes pieces of 10 MiB
    hub = Hub(gpt2["revision"], {"config.json": b"{}", "model.safetensors": weights})
    command = ("pretrain", "gpt2", "none", "weights", "log")
    with serving(hub) as endpoint:
        environment = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": TOKEN,
        }
        hub.broken = True
        done = replicate(*command, cwd=project, **environment)
        told(
            done,
            "openai-community/gpt2@607a30d7: the download of model.safetensors failed (the hub answers 503); run the same command again",
        )
        assert not (project / "weights").exists()
        secret(TOKEN, done, tmp_path)
        hub.broken, hub.seen = False, []
        done = replicate(*command, cwd=project, **environment)
    assert done.returncode == 0, done.stderr
    assert hub.ranges() == [f"bytes={10 << 20}-"]
    (path,) = (tmp_path / "home").rglob("model.safetensors")
    assert path.read_bytes() == weights
    noted = json.loads((project / "weights" / "manifest.json").read_text())["files"][
        "model.safetensors"
    ]
    assert noted == {"size": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    secret(TOKEN, done, tmp_path)
    told_to = {
        (path, headers["Authorization"])
        for _, path, headers in hub.seen
        if headers["Authorization"]
    }
    files = ("model.safetensors.index.json", "model.safetensors")
    assert told_to == {
        (f"/{gpt2['repository']}/resolve/{gpt2['revision']}/{name}", f"Bearer {TOKEN}")
        for name in files
    }


def test_a_part_that_does_not_fit_is_fetched_anew(
    cache: Path, project: Path, tmp_path: Path
) -> None:
    imdb = PARAMS["corpora"]["imdb"]
    table = io.BytesIO()
    parquet.write_table(pa.table({"text": TEXTS}), table)
    hub = Hub(imdb["revision"], {Path(imdb["file"]).name: table.getvalue()})
    (cached,) = cache.rglob("*.parquet")
    cached.unlink()
    blobs = cached.parents[3] / "blobs"
    blobs.mkdir()
    (blobs / f"{hashlib.sha256(table.getvalue()).hexdigest()}.incomplete").write_bytes(
        b"of another file"
    )
    with serving(hub) as endpoint:
        done = replicate(
            "extract",
            "gpt2",
            "out",
            cwd=project,
            HF_ENDPOINT=endpoint,
            HF_HOME=str(cache),
            HF_TOKEN=TOKEN,
        )
    assert done.returncode == 0, done.stderr
    assert hub.ranges() == ["bytes=15-", None]
    assert cached.read_bytes() == table.getvalue()
    secret(TOKEN, done, tmp_path)
