"""Real data for some tests, where it lies beside the project; tests that want it skip where it is
absent.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture
def imdb() -> Path:
    path = SHARED / "imdb" / "train.jsonl.gz"
    if not path.is_file():
        pytest.skip("the IMDB training reviews are not beside the project")
    return path


@pytest.fixture
def gpt2_tokenizer() -> Path:
    path = SHARED / "gpt2-tokenizer"
    if not path.is_dir():
        pytest.skip("the GPT-2 tokenizer is not beside the project")
    return path


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
    """The environment without what the caller has set for git and DVC, but for where DVC may keep
    what its repositories share.
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
