"""`doctor` names what a machine lacks, the remedy, and the studies that need it; no secret."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from replicate.pipeline import config, doctor
from tests.conftest import ROOT, commit, replicate
from tests.models.test_hub import TOKEN, answer, serving

CONFIG = config.load(ROOT / "params.yaml")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository of git with params.yaml and the locks of the packages."""
    folder = tmp_path / "project"
    (folder / ".dvc" / "tmp").mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    return commit(folder)


def examine(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `doctor` in a home of its own, with no hub."""
    defaults = {
        "HF_HOME": str(project.parent / "home"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_TOKEN": TOKEN,
    }
    return replicate("doctor", *arguments, cwd=project, **defaults | environment)


def line(done: subprocess.CompletedProcess[str], name: str) -> str:
    return next(row for row in done.stdout.splitlines() if name in row)


def test_a_machine_without_gpu_hub_and_git_can_run_the_demo(project: Path, tmp_path: Path) -> None:
    before = sorted(project.rglob("*"))
    done = examine(project, CUDA_VISIBLE_DEVICES="", PATH=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert line(done, "packages").startswith("ok")
    assert line(done, "GPU").endswith("(for paper)")
    assert "the hub cannot be reached (ConnectError); check the network" in line(done, "lack  hub")
    said = ["control: yes", "demo: yes", "paper: no, because of GPU, hub"]
    assert done.stdout.splitlines()[-4:] == [*said, "pythia: no, because of hub"]
    assert TOKEN not in done.stdout + done.stderr
    assert sorted(project.rglob("*")) == before


def test_the_same_is_told_to_programs(project: Path) -> None:
    found = json.loads(examine(project, "--json").stdout)
    assert found["lacking"]["demo"] == []
    assert "hub" in found["lacking"]["paper"]
    names = {check["name"] for check in found["checks"] if check["remedy"]}
    assert names >= set(found["lacking"]["paper"])
    assert TOKEN not in json.dumps(found)


def test_outside_a_clone_no_study_can_run(project: Path) -> None:
    shutil.rmtree(project / ".dvc")
    done = examine(project)
    assert done.returncode == 1
    assert "run this from the root of a clone" in line(done, "DVC")
    assert "demo: no, because of DVC" in done.stdout


def test_a_package_that_is_not_the_locked_one_is_named(tmp_path: Path) -> None:
    lock = 'click==0.1 \\\n    --hash=sha256:0\nno-such==1.0\nothers==1 ; sys_platform == "none"\n'
    for name, text in (("base", lock), ("cpu", ""), ("cuda", "")):
        (tmp_path / f"{name}.lock").write_text(text)
    check = doctor.packages(tmp_path, ("demo",))
    assert check.found.startswith("not as locked: click ")
    assert check.found.endswith(" for==0.1, no-such missing for==1.0")
    assert "make setup" in check.remedy


@pytest.mark.parametrize("text", ["", "{", "[]", '{"read": 1}', '{"write": {"a": {}}}'])
def test_a_table_of_locks_that_was_cut_short_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "rwlock").write_text(text)
    assert doctor.dvc(tmp_path, ("demo",)).remedy == f"remove {tmp_path / 'tmp' / 'rwlock'}"


def test_a_lock_of_a_living_process_is_told_and_of_a_dead_one_is_not(tmp_path: Path) -> None:
    code = "import os; print(os.getpid())"
    gone = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    (tmp_path / "tmp").mkdir()
    for pid, lacks in ((int(gone.stdout), False), (os.getpid(), True)):
        entry = {"pid": pid, "cmd": "x"}
        locks = {"write": {"a": entry}, "read": {"b": [entry]}}
        (tmp_path / "tmp" / "rwlock").write_text(json.dumps(locks))
        assert bool(doctor.dvc(tmp_path, ("demo",)).remedy) == lacks


def test_the_hub_s_files_are_those_of_the_original_models_and_of_pythia() -> None:
    files = doctor.hub_files(CONFIG)
    assert {frozenset(studies) for (name, *_), studies in files.items() if "imdb" not in name} == {
        frozenset({"paper"}),
        frozenset({"pythia"}),
    }
    models = {model.repository for model in CONFIG.models.values() if model.source == "hub"}
    assert {repository for repository, *_ in files} == models | {"stanfordnlp/imdb"}


def test_a_licence_that_was_not_accepted_is_told_for_each_model(project: Path) -> None:
    """The hub gives every file but those of Llama 2."""

    def respond(request: object) -> None:
        refused = "Llama-2" in request.path  # pyright: ignore[reportAttributeAccessIssue]
        given = {"ETag": '"0"', "X-Repo-Commit": "0" * 40}
        headers = {"X-Error-Code": "GatedRepo"} if refused else given
        answer(request, 403 if refused else 200, headers)  # pyright: ignore[reportArgumentType]

    with serving(respond) as endpoint:
        done = examine(project, HF_ENDPOINT=endpoint)
    lacking = [row for row in done.stdout.splitlines() if row.startswith("lack  hub")]
    assert len(lacking) == 4  # three models and a tokenizer
    assert all("accept the licence on the page" in row and "(for paper)" in row for row in lacking)


def test_weights_in_the_cache_need_no_hub(project: Path) -> None:
    for repository, revision, name, kind in doctor.hub_files(CONFIG):
        folder = project.parent / "home" / "hub" / f"{kind}s--{repository.replace('/', '--')}"
        for file in [name] if name else ["config.json", "model.safetensors"]:
            path = folder / "snapshots" / revision / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    done = examine(project, HF_HUB_OFFLINE="1")
    assert "the cache lacks 0 of" in line(done, "hub  ")
    assert "hub" not in line(done, "paper: ")
