"""The machine fails: one line says what and how to go on, and nothing that was finished is lost."""

from __future__ import annotations

import errno
import os
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from replicate.data import traces
from replicate.errors import refusal
from replicate.pipeline.work import plans
from tests.conftest import ROOT, replicate
from tests.pipeline import small
from tests.pipeline.small import MODELS, configured

PYTHON = shlex.quote(sys.executable)


@pytest.mark.fault("B8")
def test_an_output_that_cannot_print_decides_nothing(project: Path) -> None:
    """The words of `search` have a λ, and the help too."""
    before = small.files(Path("data/mini/search"))
    shutil.rmtree("data/mini/search")
    for line in (["search", "mini"], ["--help"]):
        done = replicate(*line, cwd=project, PYTHONIOENCODING="ascii")
        assert done.returncode == 0, done.stderr
        assert "?" in done.stdout
    assert small.files(Path("data/mini/search")) == before


@pytest.mark.fault("B8")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs_decide_nothing(project: Path, closed: str) -> None:
    line = f"{PYTHON} -m replicate collect demo {closed}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run(["sh", "-c", line], env=environment).returncode == 0


@pytest.mark.fault("B8")
@pytest.mark.parametrize("into", ["| true", "| head -c 1", "2>&1 | true"])
@pytest.mark.parametrize("command", ["collect demo", "--help", "summary nobody"])
def test_an_output_that_is_closed_early_decides_nothing(
    project: Path, into: str, command: str
) -> None:
    line = f"{{ {PYTHON} -m replicate {command}; echo $? >code; }} {into}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True)
    assert (project / "code").read_text().strip() == ("2" if "nobody" in command else "0")
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.fault("B9")
def test_the_variables_of_a_launcher_are_not_read(project: Path) -> None:
    shutil.rmtree("data/mini/baselines")
    for given in ({"WORLD_SIZE": "abc", "RANK": "", "LOCAL_RANK": "x"}, {"WORLD_SIZE": "2"}):
        done = replicate("baseline", "mini", cwd=project, **given)
        assert done.returncode == 0, done.stderr


ESTIMATE = """
import resource, sys
from tests.pipeline import small
{limit}
from replicate.pipeline.cli import main
main(["estimate", "mini"])
"""


def limited(folder: Path, limit: str) -> subprocess.CompletedProcess[str]:
    """Runs `estimate` in a process under a limit."""
    return subprocess.run(
        [sys.executable, "-c", ESTIMATE.format(limit=limit)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        (f"resource.setrlimit({resource.RLIMIT_FSIZE}, (200, 200))", "larger than a file may be"),
        ("import torch\ntorch.Tensor.backward = lambda *_: torch.empty(2**50)", "not enough mem"),
    ],
    ids=["disk", "memory"],
)
def test_what_the_machine_refuses_is_one_line_and_loses_nothing(
    project: Path, limit: str, says: str
) -> None:
    cache = configured().paths.cache
    for unit in plans.estimate(configured(), MODELS[1]):
        unit.file.unlink()
    before = small.files(cache)
    done = limited(project, limit)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    *progress, error = done.stderr.splitlines()
    assert says in error
    assert "run the same command again: what is finished is kept" in error
    assert all(" s left" in line for line in progress), done.stderr
    assert small.files(cache) == before
    whole = traces.load(Path("data/mini/traces") / MODELS[1])
    small.run(configured(), "estimate")
    assert traces.load(Path("data/mini/traces") / MODELS[1]).equals(whole)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.AcceleratorError("CUDA error: out of memory\nSearch for …"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_no_memory_is_told_by_whatever_name(error: Exception) -> None:
    wrapped = RuntimeError("a library's")
    wrapped.__cause__ = error
    assert "not enough memory" in str(refusal(wrapped))
    assert "microbatch_size" in str(refusal(wrapped))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES])
def test_what_a_disk_refuses_is_told_with_the_file(number: int) -> None:
    assert str(refusal(OSError(number, os.strerror(number), "data/x"))).startswith("data/x: ")
    rust = ValueError(f"Error while serializing: I/O error: … (os error {number})")
    assert "run the same command again" in str(refusal(rust))
