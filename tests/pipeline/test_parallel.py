"""Work that is spread over real processes: the same bytes, whatever happens to them."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from replicate.errors import UserError
from replicate.pipeline import cache, parallel
from replicate.pipeline.cli import main
from replicate.pipeline.config.schema import Machine
from replicate.pipeline.parallel import Engine
from replicate.pipeline.stages.calibrate import CalibrationUnit
from replicate.validation.cases import REPEATED, Job
from tests.conftest import ROOT
from tests.pipeline.notes import NoteUnit

HERE = os.environ | {"PYTHONPATH": str(ROOT)}


def notes(root: Path, count: int, pause: float = 0.0) -> list[NoteUnit]:
    return [NoteUnit(root, "estimate", number, pause) for number in range(count)]


def repeats(root: Path) -> list[CalibrationUnit]:
    """Real chains of a small target."""
    return [
        CalibrationUnit(root, "calibrate", Job(REPEATED.name, repeat=i), 7, 2, 1) for i in range(5)
    ]


def content(root: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in root.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process, without a cluster, leaves in the cache."""
    root = tmp_path_factory.mktemp("alone")
    with Engine(Machine(workers=1)) as engine:
        engine.run(repeats(root), "alone")
    return content(root)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A scheduler, and two "machines" with a worker process each, on addresses of their own."""
    address, host = "tcp://127.0.0.1:18786", ["--host", "127.0.0.1", "--port", "18786"]
    commands = [["distributed.cli.dask_scheduler", "--no-dashboard", *host]]
    commands += [
        ["replicate", "worker", address, "--workers", "1", "--host", f"127.0.0.{number}"]
        for number in (2, 3)
    ]
    given: dict[str, Any] = {"cwd": ROOT, "env": HERE, "stderr": subprocess.DEVNULL}
    running = [subprocess.Popen([sys.executable, "-m", *each], **given) for each in commands]
    yield address
    for process in running:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_number_of_workers_changes_no_byte(
    workers: int, tmp_path: Path, alone: dict[str, bytes]
) -> None:
    with Engine(Machine(workers=workers)) as engine:
        engine.run(repeats(tmp_path), "spread")
    assert content(tmp_path) == alone


@pytest.mark.slow
def test_two_machines_that_share_a_folder_give_the_same_bytes(
    cluster: str, tmp_path: Path, alone: dict[str, bytes]
) -> None:
    with Engine(Machine(scheduler=cluster)) as engine:
        engine.run(repeats(tmp_path), "two machines")
        hosts = {worker["host"] for worker in engine.client.scheduler_info()["workers"].values()}
    assert content(tmp_path) == alone
    assert hosts == {"127.0.0.2", "127.0.0.3"}


def test_a_worker_that_is_killed_loses_its_own_unit_alone(
    tmp_path: Path, alone: dict[str, bytes]
) -> None:
    """The finished units are not computed again, and the lost one runs elsewhere."""
    killed: list[int] = []

    def kill() -> None:
        while not list(tmp_path.rglob("calibrate/[!.]*")):
            time.sleep(0.05)
        worker = workers_of(os.getpid())[0]
        killed.append(worker.pid)
        worker.kill()

    with Engine(Machine(workers=2)) as engine:
        engine.run(notes(tmp_path / "notes", 3), "start")
        thread = threading.Thread(target=kill)
        thread.start()
        engine.run(repeats(tmp_path), "killed")
        thread.join()
    assert killed
    found = content(tmp_path)
    assert {name: found[name] for name in alone} == alone


SHARING = """
import os, sys
from pathlib import Path
from replicate.pipeline.config.schema import Machine
from replicate.pipeline.parallel import Engine
from tests.pipeline.test_parallel import repeats
with Engine(Machine()) as engine:
    engine.run(repeats(Path(sys.argv[1])), "shared")
    print(*sorted(engine.client.run(os.getpid).values()))
"""


def test_the_stages_of_one_command_share_workers_that_end_with_it(
    tmp_path: Path, alone: dict[str, bytes]
) -> None:
    (tmp_path / "stage.py").write_text(SHARING)
    script = f"{shlex.quote(sys.executable)} {tmp_path}/stage.py {tmp_path}"
    command = ["sh", "-c", f"{script}/first; {script}/second; exit 3"]
    ended = subprocess.run(
        [sys.executable, "-m", "replicate", "share", *command],
        cwd=ROOT,
        env=HERE,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 3, ended.stderr
    first, second = ended.stdout.splitlines()
    assert first == second
    assert content(tmp_path / "first") == content(tmp_path / "second") == alone
    end = time.monotonic() + 20
    while any(psutil.pid_exists(int(pid)) for pid in first.split()):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("stage", [*cache.UNITS, "extract", "collect", "read", "report"])
def test_a_stage_that_has_nothing_to_compute_does_not_import_torch(stage: str) -> None:
    if stage in ("calibrate", "coverage"):
        pytest.skip("its targets are torch modules")
    script = f"import sys, replicate.pipeline.stages.{stage}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


def test_a_unit_that_kills_two_workers_is_named_in_one_line(tmp_path: Path) -> None:
    units = notes(tmp_path, 4)
    deadly = NoteUnit(tmp_path, "estimate", 99, deadly=True)
    with Engine(Machine(workers=2)) as engine, pytest.raises(UserError) as caught:
        engine.run([*units, deadly], "deadly")
    assert str(caught.value).startswith("note 99: it ended two worker processes, perhaps")
    assert all(unit.done() for unit in units)


@pytest.mark.parametrize("code", ["old", None])
def test_a_worker_refuses_units_of_other_code(
    code: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It need not be able to read them."""
    monkeypatch.setattr(parallel, "STARTED", {"estimate": code} if code else {})
    with pytest.raises(UserError, match="runs other code than this command; start it again with"):
        parallel.execute("estimate", b"unreadable", cache.code_hash("estimate"), tmp_path)


@pytest.fixture(scope="module")
def two() -> Iterator[Engine]:
    """Two worker processes in the project's folder."""
    with Engine(Machine(workers=2)) as engine:
        yield engine


def test_a_worker_in_another_folder_is_told_and_computes_nothing(
    two: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two.run(notes(tmp_path, 3), "start")
    monkeypatch.chdir(tmp_path)
    units = notes(Path("cache-of-a-test"), 3)
    with pytest.raises(UserError) as caught:
        two.run(units, "elsewhere")
    assert f"the worker in {ROOT}" in str(caught.value)
    assert "start it in the project's folder, which all machines share" in str(caught.value)
    assert list(Path("cache-of-a-test").iterdir()) == []
    assert not (ROOT / "cache-of-a-test").exists()


def test_a_card_too_small_for_a_unit_is_told_with_the_unit_and_the_machine(
    two: Engine, tmp_path: Path
) -> None:
    units = [*notes(tmp_path, 2), NoteUnit(tmp_path, "estimate", 99, too_large=True)]
    with pytest.raises(UserError) as caught:
        two.run(units, "too large")
    assert str(caught.value).startswith(f"note 99, on {socket.gethostname()}: not enough memory; ")
    assert "set a smaller microbatch_size" in str(caught.value)


def test_a_scheduler_that_does_not_answer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the command, whatever it has to compute, and to a worker."""
    monkeypatch.setattr(parallel, "ANSWER", 0.3)
    nowhere = "tcp://127.0.0.1:1"
    with pytest.raises(UserError) as caught, Engine(Machine(scheduler=nowhere)) as engine:
        engine.run(notes(tmp_path, 1), "nowhere")
    assert "start `dask scheduler` there" in str(caught.value)
    done = CliRunner().invoke(main, ["worker", nowhere, "--workers", "1"])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: scheduler {nowhere}: nobody answers (")
    assert done.stderr.endswith("; start `dask scheduler` there first\n")
    assert list(tmp_path.iterdir()) == []


PROGRAM = """
import sys
from pathlib import Path
from replicate.pipeline import processes
from replicate.pipeline.config.schema import Machine
from replicate.pipeline.parallel import run_units
from tests.pipeline.notes import NoteUnit
processes.begin()
units = [NoteUnit(Path(sys.argv[1]), "estimate", i, float(sys.argv[2])) for i in range(6)]
run_units(units, Machine(workers=2), "notes")
"""


def start(root: Path, pause: float, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(root), str(pause)],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def workers_of(pid: int) -> list[psutil.Process]:
    """The processes that run units, which the process that workers are forked from has forked."""
    family = psutil.Process(pid).children(recursive=True)
    return [each for each in family if each.children() == [] and "forkserver" in cmdline(each)]


def cmdline(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGINT,
        *(pytest.param(s, marks=pytest.mark.slow) for s in (signal.SIGTERM, signal.SIGKILL)),
    ],
)
def test_workers_end_with_the_command_and_finished_units_stay(
    how: signal.Signals, tmp_path: Path
) -> None:
    process = start(tmp_path, 0.5)
    while not list(tmp_path.rglob("estimate/[!.]*")):
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(how)
    _, said = process.communicate(timeout=30)
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive
    assert "Traceback" not in said
    again = start(tmp_path, 0.0)
    assert again.wait(120) == 0
    assert len(list(tmp_path.rglob("estimate/[!.]*"))) == 6


def test_the_settings_of_the_users_dask_are_ignored(tmp_path: Path) -> None:
    """A malformed variable or file would otherwise be a traceback."""
    folder = tmp_path / "home" / ".config" / "dask"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("distributed: [not, a, mapping")
    bad = {"HOME": str(tmp_path / "home"), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "{"}
    process = start(tmp_path / "cache", 0.0, **bad)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert sorted(file.name for file in folder.iterdir()) == ["mine.yaml"]
