"""Work that is stopped, by whatever means and whenever, is taken up again by the same command, and
ends in the same bytes.

`pytest tests/test_interruption.py --whole-demo` kills the demo study itself, and compares with the
results beside it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from replicate.pipeline import cache as kept
from tests.conftest import ROOT
from tests.test_pipeline import clone, environment, run, tiny

KILLS = 20
LINE = "what is finished is kept; run the same command again to go on"


def small(params: dict[str, Any]) -> dict[str, Any]:
    """Every state is put on disk."""
    return tiny(params) | {"machine": {"processes": 2, "checkpoint_seconds": 0.0}}


@pytest.fixture(scope="module")
def study(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> tuple[Path, Path, list[str], float]:
    """A clone; another, in which nothing interrupted it; what is to be reproduced; the longest that
    an attempt may live (s).
    """
    folder = tmp_path_factory.mktemp("clone")
    if request.config.getoption("--whole-demo"):
        clone(folder, None)
        (folder / "dvc.lock").unlink()
        return folder, ROOT, ["demo"], 75.0
    clone(folder, small)
    targets, other = ["estimate@mini-34k", "transfer@mini"], folder.with_name("uninterrupted")
    shutil.copytree(folder, other, symlinks=True)
    run(other, "dvc", "repro", *targets)
    return folder, other, targets, 9.0


def start(folder: Path, *command: str, **extra: str) -> subprocess.Popen[str]:
    """In a session of its own, so that a signal to its group reaches nobody else; it hears all,
    also where the tests run under nohup.
    """
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment(folder) | extra,
        text=True,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: [
            signal.signal(code, signal.SIG_DFL) for code in (signal.SIGINT, signal.SIGHUP)
        ],
    )


def stages(dvc: int) -> list[psutil.Process]:
    """The processes of the stage that a DVC runs."""
    return psutil.Process(dvc).children(recursive=True)


def test_killed_at_random_moments_it_ends_in_the_same_bytes(
    study: tuple[Path, Path, list[str], float],
) -> None:
    """As by a power cut, by the kernel for want of memory, or DVC alone, whose stage then ends by
    itself.
    """
    folder, other, targets, longest = study
    dice, killed = random.Random(7), 0
    while killed < KILLS:
        unlock(folder)
        attempt = start(folder, "dvc", "repro", *targets)
        try:
            attempt.wait(dice.uniform(1.0, longest))
            break
        except subprocess.TimeoutExpired:
            victim = dice.choice(("all", "dvc", "stage"))
        children = stages(attempt.pid)
        if victim == "all":
            os.killpg(attempt.pid, signal.SIGKILL)
        elif victim == "dvc" or not children:
            attempt.kill()
        else:
            dice.choice(children).kill()
        attempt.wait(60)
        psutil.wait_procs(children, 60)
        outlived = [
            child.as_dict(["pid", "ppid", "status", "cmdline"])
            for child in children
            if child.is_running()
        ]
        assert not outlived, (victim, outlived)
        killed += 1
    print(f"killed {killed} times")
    unlock(folder)
    done = run(folder, "dvc", "repro", *targets)
    assert "Traceback" not in done.stderr
    assert locked(folder) == {
        name: stage for name, stage in locked(other).items() if name in locked(folder)
    }
    for name, content in files(folder / "results").items():
        assert content == (other / "results" / name).read_bytes(), name
    assert killed == KILLS


def unlock(folder: Path) -> None:
    """As `make` does before DVC, which would refuse a lock file that was being written when it was
    killed.
    """
    run(folder, "make", "--silent", "unlock")


def locked(folder: Path) -> dict[str, Any]:
    """What DVC recorded of each stage: the hashes of all that it had and made."""
    return yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with windows of a training that would take minutes."""

    def long(params: dict[str, Any]) -> dict[str, Any]:
        params = small(params)
        params["training"] |= {"steps": 100_000, "check": 100_000}
        return params

    folder = tmp_path_factory.mktemp("clone")
    clone(folder, long)
    run(folder, "dvc", "repro", "extract@mini")
    return folder


COMMAND = "-m replicate pretrain mini-34k data/mini/windows data/mini/models/mini-34k logs/mini/mini-34k/pretrain"


@pytest.mark.parametrize(
    ("number", "why"),
    [("SIGINT", "interrupted"), ("SIGTERM", "asked to stop"), ("SIGHUP", "its terminal is gone")],
)
def test_a_signal_ends_a_stage_with_one_line_that_says_how_to_go_on(
    trained: Path, number: str, why: str
) -> None:
    shutil.rmtree(trained / "logs", ignore_errors=True)
    process = start(trained, sys.executable, *COMMAND.split())
    await_rest(trained)
    os.kill(process.pid, getattr(signal, number))
    assert process.wait(30) == 128 + getattr(signal, number)
    assert process.stderr is not None
    said = [
        line
        for line in process.stderr.read().splitlines()
        if not line.startswith("pretrain mini-34k (")
    ]
    assert said == [f"stopped ({why}): {LINE}"]
    assert not (trained / "data" / "mini" / "models" / "mini-34k").exists()


def test_what_was_started_to_the_last_ends_too() -> None:
    """As a pool that is still starting its workers does; whatever a note of the end meets."""
    code = "import subprocess, sys\nfrom replicate import interruption\nstart = lambda: subprocess.Popen(['sleep', '600'])\n"
    code += "interruption.last_words.extend([lambda: print(start().pid, flush=True), lambda: 1 / 0])\ninterruption.end('interrupted', 130)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, f"stopped (interrupted): {LINE}\n")
    assert over(int(done.stdout))


def over(pid: int) -> bool:
    """Whether the process has ended, or does within seconds; nobody may have asked how."""
    try:
        process = psutil.Process(pid)
        for _ in range(100):
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            time.sleep(0.1)
    except psutil.NoSuchProcess:
        return True
    return False


@pytest.mark.parametrize(
    ("left", "kept"),
    [("", False), ('{"a": {"re', False), ('{"a": {}}', True)],
    ids=["empty", "cut", "whole"],
)
def test_what_a_kill_left_of_dvcs_lock_is_removed(tmp_path: Path, left: str, kept: bool) -> None:
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    (tmp_path / ".dvc" / "tmp" / "rwlock").write_text(left)
    for _ in range(2):
        subprocess.run(
            ["make", "--silent", "--file", ROOT / "Makefile", "unlock"], cwd=tmp_path, check=True
        )
    assert (tmp_path / ".dvc" / "tmp" / "rwlock").exists() == kept


# As DVC runs a stage's command, by the shell of whoever calls it.
DVC = "import subprocess, sys\nsubprocess.run([*sys.argv[1:], 'python {0}'])"


@pytest.mark.parametrize(
    "shell", [["bash", "--noprofile", "--norc", "-c"], ["sh", "-c"]], ids=["bash", "sh"]
)
def test_a_stage_ends_when_its_dvc_is_gone(trained: Path, shell: list[str]) -> None:
    """Also where a shell that waits for it, as dash does, is its parent."""
    shutil.rmtree(trained / "logs", ignore_errors=True)
    dvc = start(
        trained, sys.executable, "-c", DVC.format(COMMAND), *shell, DVC_STAGE="pretrain@mini-34k"
    )
    await_rest(trained)
    children = stages(dvc.pid)
    assert children
    dvc.kill()
    psutil.wait_procs(children, 30)
    assert not any(child.is_running() for child in children)
    assert dvc.stderr is not None
    assert f"stopped (DVC, which started it, is gone): {LINE}" in dvc.stderr.read()


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_a_stage_ends_whose_dvc_was_gone_before_it_began(trained: Path, shell: str) -> None:
    """As where both are started and DVC is killed while Python is still importing."""
    process = start(
        trained, shell, "-c", f"{shell} -c 'python {COMMAND}' &", DVC_STAGE="pretrain@mini-34k"
    )
    _, said = process.communicate(timeout=60)  # which ends with the last that writes there
    assert f"stopped (DVC, which started it, is gone): {LINE}" in said


def test_an_interrupted_training_is_taken_up_where_it_was(trained: Path) -> None:
    """The first state that the second run puts on disk is later than the last one of the first, of
    many steps.
    """
    first = start(trained, sys.executable, *COMMAND.split())
    rest = await_rest(trained, 300)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait(30)
    before, written = step(rest), rest.stat().st_mtime_ns
    second = start(trained, sys.executable, *COMMAND.split())
    while rest.stat().st_mtime_ns == written:
        time.sleep(0.01)
    os.killpg(second.pid, signal.SIGKILL)
    second.wait(30)
    assert before < step(rest) < before + 300


def step(rest: Path) -> int:
    found = kept.read(rest)
    return 0 if found is None else int(found["course"][0])


def await_rest(folder: Path, steps: int = 1) -> Path:
    """The file where the training rests, once it has taken so many steps."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for found in (folder / "logs" / "mini" / "mini-34k" / "pretrain").rglob("rest"):
            if step(found) >= steps:
                return found
        time.sleep(0.05)
    raise AssertionError("the training never rested")
