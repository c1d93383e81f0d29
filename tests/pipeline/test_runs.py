"""The run log says what ran, on what, and by which code; it never stops a stage."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from replicate.pipeline import environment, runs
from tests.conftest import ROOT, commit, git

BENCHMARKS = ROOT / "benchmarks" / "results.json"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of one module and one result."""
    for name in ("replicate/module.py", "results/demo.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.chdir(commit(tmp_path))
    return tmp_path


def logged(folder: Path) -> dict[str, Any]:
    """Runs an empty stage and returns its line of the log."""
    with runs.logged(folder / "logs" / "runs.jsonl", BENCHMARKS, "read", "demo"):
        pass
    return json.loads((folder / "logs" / "runs.jsonl").read_text().splitlines()[-1])


def test_a_line_says_stage_commit_device_and_versions(repository: Path) -> None:
    line = logged(repository)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert [line[key] for key in ("stage", "argument", "ended")] == ["read", "demo", "done"]
    assert line["commit"] == head.stdout.strip()
    assert line["versions"]["numpy"] == np.__version__
    assert line["device"] == environment.device()
    for private in (str(repository), str(Path.home())):
        assert private not in json.dumps(line)


def test_changed_code_is_told_and_changed_results_are_not(repository: Path) -> None:
    (repository / "results" / "demo.json").write_text("{}")
    assert logged(repository)["changed"] is False
    (repository / "replicate" / "module.py").write_text("x = 2\n")
    assert logged(repository)["changed"] is True
    git(repository, "checkout", "replicate/module.py")
    assert logged(repository)["changed"] is False


def test_neither_a_missing_git_nor_a_log_that_cannot_be_written_stops_a_stage(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(repository))
    assert logged(repository)["commit"] is None
    shutil.rmtree(repository / "logs")
    (repository / "logs").write_text("a file in the folder's place")
    with runs.logged(repository / "logs" / "runs.jsonl", BENCHMARKS, "read", "demo"):
        done = True
    assert done


def test_a_stage_that_fails_is_noted_and_fails(repository: Path) -> None:
    log = repository / "logs" / "runs.jsonl"
    with pytest.raises(KeyError), runs.logged(log, BENCHMARKS, "read", "demo"):
        raise KeyError
    assert json.loads(log.read_text())["ended"] == "error"
