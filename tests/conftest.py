"""Real data for some tests, which are skipped if the data are not beside the project; and the
commands `replicate` and `git`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


def shared(name: str) -> Path:
    """The path of real data; the test is skipped if they are absent."""
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not there")
    return SHARED / name


@pytest.fixture
def imdb() -> Path:
    return shared("imdb/train.jsonl.gz")


@pytest.fixture
def gpt2_tokenizer() -> Path:
    return shared("gpt2-tokenizer")


def replicate(
    *arguments: object, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`python -m replicate …` as a user runs it, in `cwd`."""
    return subprocess.run(
        [sys.executable, "-m", "replicate", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"} | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def inherited() -> dict[str, str]:
    """The environment without the caller's settings of git and DVC. DVC_SITE_CACHE_DIR, the folder
    that repositories share, stays.
    """
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("GIT_", "DVC_")) or key == "DVC_SITE_CACHE_DIR"
    }


def git(folder: Path, *arguments: str) -> None:
    """With an identity of its own."""
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, check=True)


def commit(folder: Path) -> Path:
    """Makes a folder a repository with all that is in it."""
    for arguments in (("init", "-q"), ("add", "--all"), ("commit", "-qm", "all")):
        git(folder, *arguments)
    return folder
