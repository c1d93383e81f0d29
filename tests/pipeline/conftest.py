"""The small study, computed once in a session and copied for each test that needs it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.pipeline import small


@pytest.fixture(scope="session")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every stage of the small study ran, up to `collect`."""
    folder, before = tmp_path_factory.mktemp("small"), Path.cwd()
    small.write(folder, small.parameters())
    os.chdir(folder)
    try:
        small.run(small.configured(), *small.COMPUTING)
        small.run(small.configured(), "collect", name="demo")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def project(computed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, which is the working directory of the test."""
    shutil.copytree(computed, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds the small study's parameters alone, and is the working directory."""
    small.write(tmp_path, small.parameters())
    monkeypatch.chdir(tmp_path)
    return tmp_path
