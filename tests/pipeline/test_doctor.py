"""`doctor` names what a machine lacks, the remedy, and what cannot be made without it; it tells no
secret.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from replicate.pipeline.config import load
from replicate.pipeline.stages import access, checks
from tests.conftest import ROOT, commit, replicate
from tests.test_hub import TOKEN, repository

PARAMS = load(ROOT / "params.yaml")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository of git and DVC, with the locks of the packages."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    commit(folder)
    subprocess.run(
        [sys.executable, "-m", "dvc", "init", "-q"],
        cwd=folder,
        check=True,
        env=os.environ | {"DVC_NO_ANALYTICS": "1"},
    )
    return folder


def doctor(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a home of its own, with no hub."""
    defaults = {
        "HF_HOME": str(project.parent / "home"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
    }
    return replicate("doctor", *arguments, cwd=project, **defaults | environment)


def line(done: subprocess.CompletedProcess[str], name: str) -> str:
    (found,) = (row for row in done.stdout.splitlines() if row[6:].startswith(name))
    return found


def test_a_machine_without_gpu_and_hub_can_run_the_demo(project: Path) -> None:
    done = doctor(
        project,
        CUDA_VISIBLE_DEVICES="",
        PATH=f"{Path(shutil.which('git') or '/usr/bin/git').parent}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(
        r"demo: yes; paper: no, because of GPU,( hub cache,)? hub; pdf: ",
        done.stdout.splitlines()[-1],
    )
    assert line(done, "packages").startswith("ok")
    assert "(for paper)" in line(done, "GPU")
    assert "connect, set HF_ENDPOINT or HTTPS_PROXY" in line(done, "hub  ")


def test_nothing_is_changed_on_disk(project: Path) -> None:
    before = sorted(project.rglob("*"))
    doctor(project)
    assert [
        path
        for path in sorted(project.rglob("*"))
        if path not in before and ".dvc" not in path.parts
    ] == []


def test_a_missing_latex_stops_the_pdf_alone(project: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = doctor(project, PATH=str(tmp_path / "bin"))
    assert done.returncode == 0
    assert "apt-get install" in line(done, "LaTeX")
    assert "(for pdf)" in line(done, "LaTeX")
    assert "pdf: no, because of LaTeX" in done.stdout.splitlines()[-1]


def test_a_missing_git_is_told_and_the_demo_runs_without(project: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = doctor(project, PATH=str(tmp_path / "bin"))
    assert line(done, "git").startswith("lack  git          git is not installed here; install it")
    assert done.stdout.splitlines()[-1].startswith("demo: yes")


def test_outside_a_repository_the_demo_cannot_run(project: Path, tmp_path: Path) -> None:
    shutil.rmtree(project / ".git")
    done = doctor(project, GIT_CEILING_DIRECTORIES=str(tmp_path))
    assert done.returncode == 1
    assert "no git repository here; work in a clone (for demo, paper)" in line(done, "git")
    assert done.stdout.splitlines()[-1].startswith(
        "demo: no, because of git"
    )  # and of DVC, unless that finds a repository further up


@pytest.mark.skipif(os.geteuid() != 0, reason="a folder that git does not trust is another user's")
def test_a_folder_that_git_does_not_trust_is_told_with_the_remedy(project: Path) -> None:
    for path in (project, project / ".git"):
        os.chown(path, 12345, 12345)
    done = doctor(project, HOME=str(project.parent), GIT_CONFIG_NOSYSTEM="1", SUDO_UID="")
    assert "git config --global --add safe.directory" in line(done, "git")


def test_a_work_folder_that_cannot_be_written_stops_the_demo(project: Path) -> None:
    (project / "data").symlink_to("/proc/self")
    done = doctor(project)
    assert done.returncode == 1
    assert line(done, "work folder").startswith("lack  work folder  data cannot be written to (")
    assert "demo: no, because of work folder" in done.stdout.splitlines()[-1]


def test_a_cache_on_a_full_disk_is_told(tmp_path: Path) -> None:
    """On a file system of its own, where the test may mount one."""
    code = "import sys, pathlib; from replicate.pipeline.stages import checks; print(checks.room('', pathlib.Path(sys.argv[1]), []).remedy)"
    mounted = 'mount -t tmpfs -o size=64k none "$1" && exec "$2" -c "$3" "$1"'
    command = [
        "unshare",
        "--mount",
        "--map-root-user",
        "sh",
        "-c",
        mounted,
        "sh",
        str(tmp_path),
        sys.executable,
        code,
    ]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    assert done.stdout.strip() == "free 1 GB more there, or name another"


def test_a_package_that_is_not_the_locked_one_is_named(project: Path) -> None:
    lock = project / "requirements" / "base.lock"
    lock.write_text(
        lock.read_text()
        .replace("\nclick==", "\nclick==0.")
        .replace("\nnumba==", "\nno-such-package==1.0\nnumba==")
    )
    done = doctor(project)
    assert done.returncode == 1
    assert "no-such-package missing for 1.0" in line(done, "packages")
    assert "click " in line(done, "packages")
    assert "make setup" in line(done, "packages")


def test_where_packages_are_missing_all_else_is_examined(project: Path, tmp_path: Path) -> None:
    (tmp_path / "shadow").mkdir()
    for name in ("huggingface_hub", "torch"):
        (tmp_path / "shadow" / f"{name}.py").write_text(
            f"raise ImportError('none', name={name!r})\n"
        )
    done = doctor(project, PYTHONPATH=f"{tmp_path / 'shadow'}:{ROOT}")
    assert done.returncode == 1
    assert "torch cannot be imported" in line(done, "GPU")
    assert line(done, "hub").startswith("lack")
    assert "LaTeX" in done.stdout


def test_the_room_that_the_hub_s_models_take_is_known_without_asking() -> None:
    """GPT-2's file is of 548 MB, with buffers that are no weights; Llama-2 7B's files are of 13.5
    GB.
    """
    sizes = {
        name: access.size(model.repository, model.revision)
        for name, model in PARAMS.models.items()
        if model.source == "hub"
    }
    assert sizes["gpt2"] == 4 * 124_439_808
    assert sizes["llama-2-7b"] == 2 * 6_738_415_616
    assert access.size("no/such", "0" * 40) == 0


def test_away_from_the_root_it_says_so(tmp_path: Path) -> None:
    done = doctor(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "run this from the project's root" in done.stderr


@pytest.mark.parametrize("text", ["", "{", "[]", '{"read": 1}', '{"write": {"a": {}}}'])
def test_a_damaged_lock_of_dvc_is_told_with_the_file_to_remove(tmp_path: Path, text: str) -> None:
    """DVC itself stops at such a file in every command."""
    (tmp_path / "rwlock").write_text(text)
    check = checks.locks(tmp_path, ["demo"])
    assert not check.ok
    assert check.remedy.endswith("rwlock")


def test_a_lock_of_a_dead_process_is_none_and_of_a_living_one_is_told(tmp_path: Path) -> None:
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    )
    for pid, ok in ((int(gone.stdout), True), (os.getpid(), False)):
        (tmp_path / "rwlock").write_text(
            json.dumps(
                {
                    "write": {"a": {"pid": pid, "cmd": "x"}},
                    "read": {"b": [{"pid": pid, "cmd": "x"}]},
                }
            )
        )
        assert checks.locks(tmp_path, ["demo"]).ok == ok


def test_the_lock_that_dvc_holds_is_seen_and_that_it_left_is_not(tmp_path: Path) -> None:
    from dvc.lock import make_lock

    lock = make_lock(str(tmp_path / "lock"))
    with lock:
        assert not checks.locks(tmp_path, ["demo"]).ok
    assert (tmp_path / "lock").exists()
    assert checks.locks(tmp_path, ["demo"]).ok


def test_every_repository_of_the_paper_study_is_asked_and_none_of_the_demo_s() -> None:
    asked = access.named(PARAMS)
    assert {studies for needs in asked.values() for studies in needs} == {"paper"}
    hub_models = {model.repository for model in PARAMS.models.values() if model.source == "hub"}
    assert {key[0] for key in asked} == hub_models | {"stanfordnlp/imdb"}


@pytest.fixture
def gated() -> Iterator[str]:
    """A hub that gives every file but those of Llama-2, whose licence was not accepted."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            refused = "Llama-2" in self.path
            self.send_response(403 if refused else 200)
            headers = (
                {"X-Error-Code": "GatedRepo"}
                if refused
                else {"ETag": '"0"', "X-Repo-Commit": "0" * 40}
            )
            for name, value in (headers | {"Content-Length": "0"}).items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_licence_that_was_not_accepted_is_told_for_each_model(project: Path, gated: str) -> None:
    done = doctor(project, HF_ENDPOINT=gated)
    lacking = [row for row in done.stdout.splitlines() if row.startswith("lack  hub  ")]
    assert len(lacking) == 3
    assert all(
        "has not accepted the licence; accept it on the page of" in row and "(for paper)" in row
        for row in lacking
    )
    assert "answers for 8 repositories" in done.stdout
    assert TOKEN not in done.stdout + done.stderr


def test_weights_in_the_cache_need_no_hub(project: Path) -> None:
    for model in PARAMS.models.values():
        if model.source == "hub":
            snapshot = repository(
                project.parent / "home" / "hub", "model", model.repository, model.revision
            )
            (snapshot / "model.safetensors").write_bytes(b"weights")
    offline = doctor(project, HF_HUB_OFFLINE="1")
    assert line(offline, "weights").endswith("7 of 7 repositories in the cache")
    assert line(offline, "hub  ").startswith("ok")


def test_a_hub_that_never_answers_is_not_waited_for(project: Path) -> None:
    """It accepts the connection and says nothing; the command ends all the same."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(32)
        done = doctor(project, HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "cannot be reached for 8 of 8" in line(done, "hub  ")


def test_no_output_holds_the_token(project: Path) -> None:
    done = doctor(project)
    whole = doctor(project, "--json")
    assert "one is given" in line(done, "token")
    assert TOKEN not in done.stdout + done.stderr + whole.stdout + whole.stderr
    found = json.loads(whole.stdout)
    assert found["lacking"]["demo"] == []
    assert all(check["ok"] == (check["remedy"] == "") for check in found["checks"])
