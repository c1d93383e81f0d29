"""`python -m replicate llc` says of a model in a folder what `llc` says, or refuses in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from replicate import baseline, llc, sample_text
from replicate.data import windows
from replicate.models import cpu_kernels, pretrained
from tests.conftest import ROOT
from tests.models import small_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its tokenizer and a text."""
    path = tmp_path_factory.mktemp("model")
    text = "".join(f"the film {n} was good and the plot {n * 7 % 13} was bad. " for n in range(300))
    tokenizer = windows.train_tokenizer([text], 300)
    tokenizer.save(str(path / "tokenizer.json"))
    model = small_task.build(vocabulary=tokenizer.get_vocab_size(), length=20)
    model.save_pretrained(path)
    (path / "text.txt").write_text(text)
    return path


def shell(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "replicate", "llc", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


QUICK = (
    *("--length", "20", "--nbeta", "30", "--localization", "300", "--lr", "1e-4"),
    *("--chains", "2", "--burn-in", "4", "--draws", "8", "--batch-size", "8"),
)


def test_the_shell_says_what_python_says(folder: Path) -> None:
    ran = shell(folder, "--text", folder / "text.txt", *QUICK, "--json")
    assert ran.returncode == 0, ran.stderr
    model, tokenizer = pretrained.load(str(folder))
    tokens = windows.consecutive([(folder / "text.txt").read_text()], tokenizer, 20)
    with cpu_kernels.fast_cpu():
        estimate = llc(
            model,
            tokens,
            nbeta=30.0,
            localization=300.0,
            lr=1e-4,
            chains=2,
            burn_in=4,
            draws=8,
            batch_size=8,
            show_progress=False,
        )
    assert json.loads(ran.stdout)["llc"] == pytest.approx(estimate.llc, rel=1e-3)


def test_the_shell_samples_text_from_the_model(folder: Path) -> None:
    ran = shell(folder, "--text", "sampled", "--windows", "40", "--seed", "2", *QUICK, "--json")
    assert ran.returncode == 0, ran.stderr
    model, _ = pretrained.load(str(folder))
    found = json.loads(ran.stdout)["made_by"]
    tokens = sample_text(model, 40, 20, seed=2, show_progress=False)
    assert found["baseline"]["loss"] == pytest.approx(baseline(model, tokens).mean(), rel=1e-5)
    assert found["task"]["examples"] == 40


def test_windows_follow_one_another(folder: Path) -> None:
    tokenizer = windows.read_tokenizer(folder)
    text = (folder / "text.txt").read_text()
    ids = tokenizer.encode(text).ids
    found = windows.consecutive([text, "too short", text[:200]], tokenizer, 20)
    whole = len(ids) // 20
    np.testing.assert_array_equal(found[:whole].ravel(), ids[: whole * 20])
    assert len(found) == whole + len(tokenizer.encode(text[:200]).ids) // 20


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("nowhere", (), "nowhere: no such folder"),
        ("tests", (), "tests: holds no model, config.json is missing"),
        ("some/model", ("--revision", "main"), "--revision main: give the commit's 40 digits"),
        ("{folder}", ("--revision", "0" * 40), "{folder}: is a folder here, which has no revision"),
        ("{folder}", ("--length", "99999"), "no text has 99999 tokens"),
        ("{folder}", ("--nbeta", "0"), "nbeta = 0.0: must be above 0"),
        ("{folder}", ("--text", "none.txt"), "none.txt: no such file"),
        ("{folder}", ("--text", "sampled", "--windows", "1"), "Invalid value for '--windows'"),
        ("{folder}", ("--text", "sampled", "--length", "22"), "length: the model takes 20 of 22"),
    ],
)
def test_the_shell_refuses_in_one_line(
    model: str, options: tuple[str, ...], message: str, folder: Path
) -> None:
    ran = shell(model.format(folder=folder), "--text", folder / "text.txt", *QUICK, *options)
    assert ran.returncode == 2
    assert ran.stderr.splitlines() == [ran.stderr.strip()]
    assert ran.stderr.startswith(f"error: {message.format(folder=folder)}")
