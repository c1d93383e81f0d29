"""Whatever a user gets wrong, a command ends in one line and exit code 2, and changes nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from replicate.data import tensors
from replicate.data.tensors import file_hash
from replicate.errors import refusal
from replicate.models import baseline, task
from replicate.pipeline.cli import NAME, main
from replicate.pipeline.stages import extract
from replicate.pipeline.work import plans
from tests.conftest import replicate
from tests.pipeline import small
from tests.pipeline.small import MODELS, configured, told


def invoke(*line: str) -> Result:
    return CliRunner().invoke(main, line, prog_name=NAME)


def said(done: Result) -> str:
    """Returns the one line in which a command says what is wrong; it does nothing else."""
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.stderr.startswith("error: ")
    assert done.stderr[:-1].isprintable()
    assert done.stderr.endswith("\n")
    return done.stderr


LINES = [
    (["nope"], f"No such command 'nope'; see `{NAME} --help`"),
    (["extrct"], "extract"),
    (["--bogus"], "No such option"),
    (["extract"], f"Missing argument 'FAMILY'; see `{NAME} extract --help`"),
    (["extract", "maxi"], "family 'maxi': params.yaml has none of that name; give one of mini"),
    (["extract", "../mini"], "family '../mini': params.yaml has none of that name"),
    (["extract", "mini", "more"], "Got unexpected extra argument (more)"),
    (["extract", "mini\n\x1b[31m"], "params.yaml has none of that name"),
    (["extract", "mini", "--only", "mini-8"], "No such option"),
    (["collect", "mini"], "study 'mini': params.yaml has none of that name; give one of demo"),
    (["estimate", "mini", "--only", "gpt2"], "--only gpt2: is not of this family; give one of"),
    (["estimate", "mini"], "leave the order to `dvc repro`"),
    (["pretrain", "mini"], "data/mini/windows/windows.safetensors: "),
    (["baseline", "mini"], "data/mini/windows/windows.safetensors: "),
    (["plan", "nope"], "plan: 'nope' is no known study; write one of demo"),
    (["plan", "--device", "abacus"], "plan: 'abacus' is no known device; write one of h200, h100"),
    (["compare", "demo", "nowhere"], "name another commit, a study (demo) or a folder of results"),
    (["paper", "none.tex"], "none.tex"),
    (["worker", "foo"], "scheduler 'foo': is no address; write tcp://HOST:PORT, as `dask sched"),
    (["worker", "tcp://127.0.0.1:x"], "scheduler 'tcp://127.0.0.1:x': is no address; write tcp"),
    (["worker", "http://127.0.0.1:1"], "scheduler 'http://127.0.0.1:1': is no address; write"),
    (["worker", ""], "scheduler '': is no address; write tcp://HOST:PORT"),
    (["worker", "tcp://127.0.0.1:1", "--workers", "0"], "Invalid value for '--workers'"),
    (["worker", "tcp://127.0.0.1:1", "--workers", "-1"], "Invalid value for '--workers'"),
    (["report"], "results/demo/baselines.json: cannot be read (no such file)"),
    (["summary", "demo"], "results/demo"),
]


@pytest.mark.parametrize(("line", "says"), LINES, ids=[" ".join(line)[:30] for line, _ in LINES])
def test_a_wrong_command_line_is_told(empty: Path, line: list[str], says: str) -> None:
    before = small.files(empty)
    assert says in said(invoke(*line))
    assert small.files(empty) == before


def test_a_mistake_in_the_parameters_ends_each_command(empty: Path) -> None:
    (empty / "params.yaml").write_text("seed: [")
    for line in (["extract", "mini"], ["collect", "demo"], ["plan"], ["compare"], ["report"]):
        assert "params.yaml: not YAML" in said(invoke(*line))


def test_a_process_ends_as_the_command_does(empty: Path) -> None:
    done = replicate("estimate", "mini", cwd=empty, HF_TOKEN="hf_canary")  # noqa: S106
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    log = (empty / "logs" / "runs.jsonl").read_text()
    assert json.loads(log)["ended"] == "error"
    assert "canary" not in done.stderr + log


# What the stages before have left.


def rewritten(path: Path, **changes: Any) -> None:
    tensors.save(path, tensors.load(path) | changes)


WINDOWS = Path("data/mini/windows") / plans.WINDOWS
BASELINE = Path("data/mini/baselines") / MODELS[0]
MODEL = Path("data/mini/models") / MODELS[0]
CHOSEN = Path("data/mini/search/chosen.json")

LOSSES, REPORT = BASELINE / "losses.safetensors", BASELINE / "baseline.json"
WEIGHTS, SHAPE = MODEL / "model.safetensors", MODEL / "config.json"
UNSET = f"{CHOSEN}: no sampler settings; run `dvc repro search@mini`"
LOSS = Path("data/mini/traces/mini-8/loss")
LEFT: list[tuple[str, Callable[[], object], str]] = [  # stage, what happened, words of the line
    ("pretrain", lambda: WINDOWS.unlink(), f"{WINDOWS}: cannot be read"),
    ("pretrain", lambda: os.truncate(WINDOWS, 99), f"{WINDOWS}: cannot be read"),
    ("pretrain", lambda: tensors.save(WINDOWS, {"x": np.ones(3)}), f"{WINDOWS}: holds no windows"),
    ("pretrain", lambda: WINDOWS.with_name("tokenizer.json").unlink(), "no tokenizer.json, nor"),
    ("baseline", lambda: shutil.rmtree(MODEL), f"{MODEL}: "),
    ("baseline", lambda: os.truncate(WEIGHTS, 99), f"{MODEL}: no usable weights"),
    ("baseline", lambda: pickled(), f"{MODEL}: no usable weights"),
    ("baseline", lambda: os.truncate(SHAPE, 9), f"{SHAPE}: cannot be read"),
    ("estimate", lambda: CHOSEN.unlink(), f"{CHOSEN}: is missing; run the stage"),
    ("estimate", lambda: CHOSEN.write_text("[3]"), UNSET),
    ("transfer", lambda: CHOSEN.write_text('{"sampler": "sgld"}'), UNSET),
    ("estimate", lambda: shutil.rmtree(BASELINE), f"{REPORT}: is missing; run"),
    ("search", lambda: LOSSES.unlink(), f"{LOSSES}: cannot be read"),
    ("estimate", lambda: rewritten(LOSSES, losses=np.ones(3)), f"{LOSSES}: not the losses of"),
    ("collect", lambda: shutil.rmtree(LOSS), f"{LOSS.parent}: "),
    ("collect", lambda: os.truncate(REPORT, 20), f"{REPORT}: cannot be read"),
]


def pickled() -> None:
    (MODEL / "model.safetensors").unlink()
    torch.save({"x": torch.ones(1)}, MODEL / "pytorch_model.bin")


@pytest.mark.parametrize(("stage", "damage", "says"), LEFT)
def test_what_a_stage_left_and_cannot_be_used_is_told(
    project: Path, stage: str, damage: Callable[[], object], says: str
) -> None:
    damage()
    shutil.rmtree("cache")
    before = small.files(project)
    name = "demo" if stage == "collect" else "mini"
    told(lambda: small.run(configured(), stage, name=name), says)
    after = small.files(project)
    assert {path: after[path] for path in before} == before
    assert all(path.startswith("cache") for path in after.keys() - before.keys())


@pytest.mark.parametrize("stage", ["search", "estimate", "transfer"])
def test_a_baseline_of_other_windows_names_both_hashes_and_the_remedy(
    project: Path, stage: str
) -> None:
    then = file_hash(WINDOWS)
    rewritten(WINDOWS, review=tensors.load(WINDOWS)["review"][::-1].copy())
    hashes = f"other windows ({then[:12]}, expected {file_hash(WINDOWS)[:12]})"
    told(lambda: small.run(configured(), stage), hashes, "run `dvc repro baseline@mini`")


@pytest.mark.parametrize(
    ("length", "highest", "says"),
    [
        (12, 300, "knows 300 tokens, and its windows hold number 300; families.mini.token"),
        (14, 299, "reads 12 tokens at most, and windows have 13 before the label; lower fam"),
    ],
)
def test_windows_that_a_model_cannot_read_are_told(
    project: Path, length: int, highest: int, says: str
) -> None:
    rewritten(WINDOWS, tokens=np.full((3, length), highest, np.int32))
    found = task.load(plans.task_config(configured(), MODELS[0]))
    told(lambda: baseline.check(found), MODELS[0], says)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_family_that_needs_a_gpu_says_so(project: Path) -> None:
    shutil.rmtree("cache")
    config = configured(families__mini__device="cuda")
    told(lambda: small.run(config, "estimate"), "needs a CUDA GPU, and torch finds none here")


SOURCES = [
    ({"corpora__films": {"source": "local", "path": "own.doc"}}, "own.doc: unknown format"),
    ({"corpora__films": {"source": "local", "path": "own.csv"}}, "own.csv: "),
    ({"tokenizers__films": {"source": "local", "path": "own.txt"}}, "own.txt: not a tokenizer"),
    ({"tokenizers__films": {"source": "local", "path": "none"}}, "none: no tokenizer.json, nor"),
    ({"families__mini__length": 10_000}, "none of 60 reviews is long enough for windows of 10000"),
]


@pytest.mark.parametrize(("changes", "says"), SOURCES)
def test_a_text_or_tokenizer_that_cannot_serve_is_told(
    empty: Path, changes: dict[str, Any], says: str
) -> None:
    (empty / "own.txt").write_text("{}")
    told(lambda: small.run(configured(**changes), "extract"), says)
    assert not (empty / "data").exists()


@pytest.mark.parametrize("error", [KeyError("llc"), ValueError("x"), TypeError("x")])
def test_a_programmers_mistake_is_a_traceback(
    empty: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(extract, "run", fail)
    assert invoke("extract", "mini").exception is error
    assert refusal(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None
