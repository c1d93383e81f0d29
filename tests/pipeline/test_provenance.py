"""What a result is from can be told: hashes and versions in git, commit and time in the run log,
and no secret in either.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import replicate as package
from replicate.data import traces
from replicate.models import hub
from replicate.pipeline import environment
from replicate.pipeline.config import load
from replicate.pipeline.stages.provenance import of_model
from tests.conftest import ROOT, commit, git, replicate

TOKEN = "hf_" + "secret" * 5
PARAMS = load(ROOT / "params.yaml")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with the results, the code's files that count, and the parameters."""
    folder = tmp_path / "project"
    (folder / "replicate").mkdir(parents=True)
    (folder / "replicate" / "module.py").write_text("x = 1\n")
    for name in ("params.yaml", "dvc.yaml", "data/published.yaml", ".gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "results", folder / "results")
    return commit(folder)


def claims(project: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A stage that ends soon."""
    return replicate(
        "claims",
        "demo",
        "results/demo",
        "data/published.yaml",
        "results/demo",
        cwd=project,
        HF_TOKEN=TOKEN,
        **environment,
    )


def log(project: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (project / "logs" / "runs.jsonl").read_text().splitlines()]


def test_a_stage_leaves_a_line_that_says_what_ran(project: Path) -> None:
    assert claims(project).returncode == 0
    (line,) = log(project)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert (line["stage"], line["argument"], line["ended"], line["commit"]) == (
        "claims",
        "demo",
        "done",
        head,
    )
    assert line["params"] == hashlib.sha256((project / "params.yaml").read_bytes()).hexdigest()
    assert line["versions"]["numpy"] == np.__version__
    assert (
        line["versions"]["replicate"]
        == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    )
    assert line["device"] == environment.processor()


def test_a_changed_source_is_dirty_and_changed_results_are_not(project: Path) -> None:
    (project / "results" / "demo" / "search.json").write_text(
        (project / "results" / "demo" / "search.json").read_text() + "\n"
    )
    claims(project)
    (project / "replicate" / "module.py").write_text("x = 2\n")
    claims(project)
    git(project, "checkout", "replicate/module.py")
    (project / "params.yaml").write_text((project / "params.yaml").read_text() + "\n")
    claims(project)
    assert [line["dirty"] for line in log(project)] == [False, True, True]


def test_a_stage_that_fails_leaves_its_line_and_its_exit_code(project: Path) -> None:
    (project / "results" / "demo" / "estimates.json").write_text("[")
    done = claims(project)
    assert done.returncode == 2
    assert [line["ended"] for line in log(project)] == ["error"]


def test_a_mistake_in_the_command_is_no_run(project: Path) -> None:
    assert (
        replicate(
            "claims", "dmeo", "results/demo", "data/published.yaml", "out", cwd=project
        ).returncode
        == 2
    )
    assert not (project / "logs").exists()


def test_without_git_the_line_says_that_the_commit_is_unknown(
    project: Path, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    assert claims(project, PATH=str(tmp_path / "bin")).returncode == 0
    (line,) = log(project)
    assert line["commit"] is line["dirty"] is None


def test_a_log_that_cannot_be_written_stops_nothing(project: Path) -> None:
    (project / "logs").write_text("a file in the folder's place")
    assert claims(project).returncode == 0


def test_only_the_first_of_several_processes_writes(project: Path) -> None:
    assert claims(project, RANK="1").returncode == 0
    assert not (project / "logs").exists()


def test_no_line_holds_a_token_a_path_or_a_user(project: Path) -> None:
    claims(project)
    text = (project / "logs" / "runs.jsonl").read_text()
    assert TOKEN not in text
    assert str(project) not in text
    assert str(Path.home()) not in text
    assert set(json.loads(text)) == {
        *(
            "stage",
            "argument",
            "ended",
            "started",
            "seconds",
            "commit",
            "dirty",
            "params",
            "device",
            "processes",
            "versions",
        )
    }


def test_versions_are_told_without_importing_what_they_are_of() -> None:
    code = "import sys; from replicate import environment; assert environment.versions()['torch']; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ), check=True)


def family(folder: Path, **attributes: object) -> Path:
    """What the compute stages leave of a trained model, in small."""
    for name, content in (
        ("windows/windows.safetensors", b"windows"),
        ("models/mini-34k/model.safetensors", b"weights"),
    ):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(content)
    loss = np.arange(12, dtype=np.float32).reshape(1, 2, 6)
    dims = ("group", "chain", "draw")
    trace = xr.Dataset(
        {"loss": (dims, loss), "init_loss": (dims, loss), "seconds": (dims, loss)}, attrs=attributes
    )
    traces.save(trace, folder / "traces" / "mini-34k", folder / "seconds.zarr")
    return folder


def test_hashes_are_those_of_the_files_and_change_with_them(tmp_path: Path) -> None:
    folder = family(
        tmp_path, sampled_on={"device": "a CPU", "threads": 1, "versions": {"numpy": "2"}}
    )
    record = of_model(PARAMS, "mini-34k", folder)
    assert record.windows == hashlib.sha256(b"windows").hexdigest()
    assert record.weights == {"model.safetensors": hashlib.sha256(b"weights").hexdigest()}
    assert (record.device, record.threads, record.versions, record.status) == (
        "a CPU",
        1,
        {"numpy": "2"},
        "run",
    )
    (folder / "models" / "mini-34k" / "model.safetensors").write_bytes(b"weightz")
    changed = of_model(PARAMS, "mini-34k", folder)
    assert changed.weights != record.weights
    assert changed.model_copy(update={"weights": record.weights}) == record


def test_the_hash_of_traces_is_of_their_numbers_and_not_of_where_they_are_from(
    tmp_path: Path,
) -> None:
    first, second = (
        of_model(PARAMS, "mini-34k", family(tmp_path / name, nbeta=name)) for name in ("a", "b")
    )
    assert first.traces == second.traces
    shifted = traces.load(tmp_path / "b" / "traces" / "mini-34k")
    shifted = shifted.assign(loss=shifted.loss + 1, seconds=shifted.loss)
    traces.save(shifted, tmp_path / "b" / "traces" / "mini-34k", tmp_path / "s.zarr")
    assert of_model(PARAMS, "mini-34k", tmp_path / "b").traces != first.traces


def test_what_was_not_run_has_its_parameters_and_nothing_else(tmp_path: Path) -> None:
    record = of_model(PARAMS, "gpt2", tmp_path)
    assert record.status == "not run"
    known = {"family", "model", "seed", "parameters", "status"}
    assert {field for field, value in record if value is not None} == known


@pytest.mark.parametrize(
    ("block", "change", "parts"),
    [
        ("families.mini.sampling", {"nbeta": 31.0}, {"sampling"}),
        ("families.mini", {"length": 49}, {"family"}),
        ("models.mini-34k", {"lr": 0.03}, {"model"}),
        ("models.mini-110k", {"lr": 0.03}, set()),
        ("families.gpt2.sampling", {"nbeta": 31.0}, set()),
        ("", {"seed": 1}, set()),
    ],
)
def test_the_part_whose_parameters_changed_is_told_by_its_hash(
    tmp_path: Path, block: str, change: dict[str, Any], parts: set[str]
) -> None:
    values = PARAMS.model_dump(mode="json")
    target = values
    for key in filter(None, block.split(".")):
        target = target[key]
    target.update(change)
    before, after = (
        of_model(params, "mini-34k", tmp_path)
        for params in (PARAMS, type(PARAMS).model_validate_json(json.dumps(values)))
    )
    assert {
        part for part in before.parameters if before.parameters[part] != after.parameters[part]
    } == parts
    assert (before.seed == after.seed) == ("seed" not in change)


def test_the_hash_of_a_large_file_of_the_hub_is_known_from_the_cache_without_reading_it(
    tmp_path: Path,
) -> None:
    name = "0123456789abcdef" * 4
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    for blob, link in ((name, "model.safetensors"), ("f" * 40, "config.json")):
        (tmp_path / "blobs" / blob).write_bytes(b"not what the name says")
        (tmp_path / "snapshot" / link).symlink_to(tmp_path / "blobs" / blob)
    (tmp_path / "snapshot" / "copied.safetensors").write_bytes(b"copied")
    assert hub.sha256(tmp_path / "snapshot" / "model.safetensors") == name
    assert (
        hub.sha256(tmp_path / "snapshot" / "config.json")
        is hub.sha256(tmp_path / "snapshot" / "copied.safetensors")
        is None
    )


def test_the_version_is_the_package_s() -> None:
    assert (
        package.__version__
        == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    )
