"""The real loading code on small repositories in the hub's cache layout, and against a server that refuses."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import yaml
from pyarrow import parquet

from replicate import models, windows
from tests.conftest import ROOT, replicate

PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
TEXTS = [f"The film number {i} is long, and the story of it is {word}. " * 30 for i, word in enumerate(["dull", "warm", "odd"] * 20)]


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
    """HF_HOME with GPT-2's repository (a tiny model of its architecture, and a tokenizer) and IMDB's."""
    hub = tmp_path / "home" / "hub"
    gpt2 = PARAMS["models"]["gpt2"]
    snapshot = repository(hub, "model", gpt2["repository"], gpt2["revision"])
    tokenizer = windows.train_tokenizer(TEXTS, 300)
    tokenizer.save(str(snapshot / "tokenizer.json"))
    torch.manual_seed(0)
    models.build("gpt2", layers=1, width=32, heads=2, vocabulary=300, length=200).save_pretrained(snapshot)
    (snapshot / "pytorch_model.bin").write_bytes(b"never read")
    imdb = PARAMS["corpora"]["imdb"]
    snapshot = repository(hub, "dataset", imdb["repository"], imdb["revision"])
    (snapshot / imdb["file"]).parent.mkdir(parents=True)
    parquet.write_table(pa.table({"text": TEXTS, "label": [0] * len(TEXTS)}), snapshot / imdb["file"])
    return tmp_path / "home"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project" / "none").mkdir(parents=True)
    (tmp_path / "project" / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return tmp_path / "project"


def test_a_filled_cache_serves_the_paper_study_offline(cache: Path, project: Path) -> None:
    """extract, pretrain and baseline of gpt2, from the pinned revisions, without network."""
    offline = {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    for arguments in (
        ("extract", "gpt2", "windows"),
        ("pretrain", "gpt2", "windows", "weights"),
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
    assert report["parameters"] == report["sampled_parameters"] == 300 * 32 + 200 * 32 + 12 * 32 * 32 + 13 * 32 + 2 * 32


def test_another_revision_in_the_cache_is_not_taken(cache: Path, project: Path) -> None:
    old = PARAMS["models"]["gpt2"]["revision"]
    params = project / "params.yaml"
    params.write_text(params.read_text().replace(old, "f" * 40))
    done = replicate("pretrain", "gpt2", "none", "weights", cwd=project, HF_HOME=str(cache), HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert "openai-community/gpt2@ffffffff: not in the local cache, and the hub cannot be reached" in done.stderr
    assert not (project / "weights").exists()


@contextmanager
def refusing(status: int, code: str | None) -> Iterator[str]:
    """A server in the hub's place that answers every request with this status and error code."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """No line per request."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (403, "GatedRepo", "access is gated; accept the licence on the page of meta-llama/Llama-2-7b-hf"),
        (401, "RepoNotFound", "no such repository, or a private one"),
        (404, "RevisionNotFound", "no such revision"),
        (404, "EntryNotFound", "no such file at this revision"),
    ],
)
def test_what_the_hub_refuses_is_one_line_with_the_remedy(project: Path, tmp_path: Path, status: int, code: str, says: str) -> None:
    params = project / "params.yaml"
    imdb = "corpus: imdb\n    tokenizer: llama2"
    params.write_text(params.read_text().replace(imdb, "corpus: films\n    tokenizer: llama2").replace("reviews: 25000", "reviews: 10"))
    token = "hf_" + "secret" * 5
    with refusing(status, code) as endpoint:
        done = replicate("extract", "llama2", "out", cwd=project, HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path / "home"), HF_TOKEN=token)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert token not in done.stderr + done.stdout
    assert not (project / "out").exists()


def test_an_unreachable_hub_is_told(project: Path, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    done = replicate("extract", "gpt2", "out", cwd=project, HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=home, HF_HUB_OFFLINE="0")
    assert done.returncode == 2, done.stderr
    assert "stanfordnlp/imdb@e6281661: not in the local cache, and the hub cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
