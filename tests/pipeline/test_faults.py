"""The machine fails: one line says what and how to go on, nothing that was finished is lost, and
then the same command succeeds.
"""

from __future__ import annotations

import ast
import errno
import json
import os
import py_compile
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from replicate.errors import refusal
from replicate.pipeline import cache as kept
from tests.conftest import ROOT
from tests.test_interruption import files, start
from tests.test_pipeline import clone, environment, run, tiny

WALL = {
    "time.time",
    "time.time_ns",
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "date.today",
}
TRANSFER = "transfer mini data/mini/windows data/mini/models data/mini/baselines data/mini/search data/mini/transfer logs/mini/transfer"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which stage transfer of a small study is next."""
    folder = tmp_path_factory.mktemp("clone")
    clone(
        folder,
        lambda params: tiny(params) | {"machine": {"processes": 1, "checkpoint_seconds": 600.0}},
    )
    run(folder, "dvc", "repro", "search@mini")
    return folder


def transfer(
    project: Path, *limits: tuple[int, int], also: str = ""
) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        for kind, most in limits:
            resource.setrlimit(kind, (most, most))

    inherited = environment(project)
    return subprocess.run(
        [sys.executable, "-m", "replicate", *TRANSFER.split()],
        cwd=project,
        env=inherited
        | {"PYTHONPATH": os.pathsep.join(filter(None, (also, inherited.get("PYTHONPATH"))))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=limit,
    )


@pytest.fixture
def unmount() -> Iterator[list[Path]]:
    """What is mounted in a test is unmounted after it."""
    mounted: list[Path] = []
    yield mounted
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


def mount(folder: Path, options: str, mounted: list[Path]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    mounted.append(folder)


def says(done: subprocess.CompletedProcess[str], line: str) -> None:
    """One line, and progress."""
    assert done.returncode == 2, done.stderr
    said = [text for text in done.stderr.splitlines() if not text.startswith("transfer mini: ")]
    assert len(said) == 1, done.stderr
    assert line in said[0]


def test_a_full_disk(project: Path, unmount: list[Path]) -> None:
    """Where the chains go, it stops at the chain that has no room; those before it are kept, and
    not run again when there is room.
    """
    logs = project / "logs" / "mini" / "transfer"
    mount(logs, "size=16k", unmount)
    says(
        transfer(project),
        "the disk is full; free some space and run the same command again: what is finished is kept",
    )
    assert not (project / "data" / "mini" / "transfer").exists()
    first = {file.name: file.read_bytes() for file in logs.rglob("chain-*")}
    assert first
    subprocess.run(["mount", "-o", "remount,size=10m", logs], check=True)
    before = {file: file.stat().st_mtime_ns for file in logs.rglob("chain-*")}
    assert transfer(project).returncode == 0
    assert all(file.stat().st_mtime_ns == written for file, written in before.items())
    undo(project)


def test_a_full_disk_where_the_output_goes(project: Path, unmount: list[Path]) -> None:
    """The output is not there at all, and what it was made of is."""
    other = project / "small"
    mount(other, "size=8k", unmount)
    command = TRANSFER.replace("data/mini/transfer ", "small/transfer ")
    done = run(project, sys.executable, "-m", "replicate", *command.split(), check=False)
    says(done, "the disk is full; free some space and run the same command again")
    assert not (other / "transfer").exists()
    assert list((project / "logs" / "mini" / "transfer").rglob("chain-*"))
    undo(project)


def test_a_folder_that_may_not_be_written_to(project: Path, unmount: list[Path]) -> None:
    mount(project / "logs" / "mini" / "transfer", "ro", unmount)
    says(
        transfer(project),
        "logs/mini/transfer cannot be written to; change its permissions, or give another folder",
    )
    assert not (project / "data" / "mini" / "transfer").exists()
    undo(project)


def test_a_limit_on_files(project: Path) -> None:
    says(
        transfer(project, (resource.RLIMIT_FSIZE, 200)),
        "larger than a file may be here; raise the limit (ulimit -f)",
    )
    assert transfer(project).returncode == 0
    undo(project)


def test_compiled_files_cut_short(project: Path) -> None:
    """As a full disk leaves them where Python does not look how much of them was written."""
    compiled = py_compile.compile(str(project / "replicate" / "stages" / "transfer.py"))
    assert compiled
    os.truncate(compiled, 200)
    says(transfer(project), "a file that Python compiled was cut short")
    assert transfer(project).returncode == 0
    undo(project)


def test_no_memory(project: Path) -> None:
    """On the host, for real."""
    text = (project / "params.yaml").read_text()
    params = json.loads(text)
    params["families"]["mini"]["transfer"]["draws"] = 10**8
    (project / "params.yaml").write_text(json.dumps(params))
    says(
        transfer(project, (resource.RLIMIT_AS, 12 * 2**30)),
        "not enough memory; close other programs",
    )
    (project / "params.yaml").write_text(text)
    assert transfer(project).returncode == 0
    undo(project)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.AcceleratorError(
            "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in …"
        ),  # of a GPU that others fill
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_no_memory_on_a_gpu(error: RuntimeError) -> None:
    """PyTorch's own error, as it is when a library has put it into another."""
    wrapped = RuntimeError("a library's")
    wrapped.__cause__ = error
    assert "not enough memory" in str(refusal(wrapped))
    assert "`microbatch`" in str(refusal(wrapped))


def test_more_memory_than_there_can_be() -> None:
    """Of a model as wide as params.yaml may have it."""
    with pytest.raises(RuntimeError) as error:
        torch.empty(10**9, 3 * 10**9, dtype=torch.float32)
    assert "not enough memory" in str(refusal(error.value))


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO, errno.EMFILE, errno.EACCES])
def test_what_else_a_disk_refuses(number: int) -> None:
    """By Python, which knows the file, and by what is written in Rust, which knows the number."""
    told = str(refusal(OSError(number, os.strerror(number), "logs/x")))
    assert told.startswith("logs/x: ")
    assert refusal(ValueError(f"Error while serializing: I/O error: … (os error {number})"))
    assert "; " in told


def test_an_error_that_is_ours_is_not_the_machine_s() -> None:
    assert refusal(KeyError("llc")) is None
    assert refusal(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_is_computed_again(project: Path, damage: str) -> None:
    """To the same bytes: it is as if it were not there."""
    assert transfer(project).returncode == 0
    whole = files(project / "data" / "mini" / "transfer")
    chains = sorted((project / "logs" / "mini" / "transfer").rglob("chain-*"))
    content = bytearray(chains[0].read_bytes())
    content[-5] ^= 1
    chains[0].write_bytes({"cut": content[:40], "flipped": content, "empty": b""}[damage])
    assert kept.read(chains[0]) is None
    subprocess.run(["rm", "-r", project / "data" / "mini" / "transfer"], check=True)
    assert transfer(project).returncode == 0
    assert files(project / "data" / "mini" / "transfer") == whole
    undo(project)


def test_a_chain_that_leaves_the_finite_is_a_result(project: Path) -> None:
    """All of them, at an absurd step size: the stage ends well and says so."""
    text = (project / "data" / "mini" / "search" / "chosen.json").read_text()
    chosen = json.loads(text) | {"lr": 1e6, "sampler": "sgld"}
    (project / "data" / "mini" / "search" / "chosen.json").write_text(json.dumps(chosen))
    done = transfer(project)
    (project / "data" / "mini" / "search" / "chosen.json").write_text(text)
    assert done.returncode == 0, done.stderr
    from replicate.data import traces

    for trace in (project / "data" / "mini" / "transfer" / "mini-34k").iterdir():
        assert traces.load(trace).failed.all()
    undo(project)


def test_two_at_once(project: Path) -> None:
    """DVC lets one go on; the other ends with a line that names it, and in the end everything is
    there once.
    """
    both = [start(project, "dvc", "repro", "transfer@mini") for _ in range(2)]
    said = [attempt.communicate(timeout=600)[1] for attempt in both]
    assert not any("Traceback" in text for text in said)
    assert 0 in {attempt.returncode for attempt in both}
    again = run(project, "dvc", "repro", "transfer@mini")
    assert "Running stage" not in again.stdout
    undo(project)


def test_a_clock_that_jumps_is_not_asked() -> None:
    """How long something took, and whether it is time, comes from clocks that nobody sets; the run
    log alone notes the date.
    """
    for file in (ROOT / "replicate").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in WALL:
                assert file.name == "runs.py", file


JUMPING = """
import itertools, time
real, jumps = time.time, itertools.cycle((0.0, 4e8, -4e8))
time.time = lambda: real() + next(jumps)  # a dozen years to and fro
"""


def test_a_clock_that_jumps_changes_nothing(project: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(JUMPING)
    assert transfer(project).returncode == 0
    whole = files(project / "data" / "mini" / "transfer")
    undo(project)
    done = transfer(project, also=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert files(project / "data" / "mini" / "transfer") == whole
    assert not re.search(r"-\d+ s left", done.stderr)
    undo(project)


def undo(project: Path) -> None:
    for folder in ("data/mini/transfer", "logs/mini/transfer"):
        subprocess.run(
            ["find", project / folder, "-mindepth", "1", "-delete"],
            check=False,
            capture_output=True,
        )
        subprocess.run(["rmdir", project / folder], check=False, capture_output=True)
