"""The house stands as its plan says: arrows between rooms point one way, and rooms stay small."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from replicate.pipeline import cache
from tests.conftest import ROOT

HOUSE = ROOT / "replicate"
LAYERS = [  # the lowest first
    {"errors", "seeds", "progress"},
    {"sampling", "estimation"},
    {"data", "models", "search", "validation"},
    {"api"},
    {"study"},
    {"reporting"},
    {"pipeline"},
]
FILES = sorted(HOUSE.rglob("*.py"))
READING = ("read", "published", "reference", "report", "summary", "compare", "paper")
RECORDS = "replicate.study.records"  # what is written, which no computation depends on


def imported(file: Path) -> set[str]:
    """Returns the full names of all that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def room(name: str) -> str:
    """Returns the room of the house that a module is in: replicate.ROOM…"""
    return name.split(".")[1] if name.startswith("replicate.") else ""


def layer(name: str) -> int:
    return next((i for i, rooms in enumerate(LAYERS) if room(name) in rooms), -1)


def named(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("file", FILES, ids=named)
def test_no_module_imports_from_a_higher_layer(file: Path) -> None:
    if file.parent != HOUSE or layer(named(file)) >= 0:
        assert not {name for name in imported(file) if layer(name) > layer(named(file))}


def test_only_the_pipeline_knows_its_tools() -> None:
    for file in FILES:
        if room(named(file)) != "pipeline":
            tools = {name.split(".")[0] for name in imported(file)}
            assert not tools & {"dvc", "click", "dask", "distributed"}, file


def test_no_module_is_long() -> None:
    every = [*FILES, *(ROOT / "tests").rglob("*.py")]
    lines = {named(file): len(file.read_text(encoding="utf-8").splitlines()) for file in every}
    assert {name: count for name, count in lines.items() if count > 300} == {}


def test_the_top_of_the_repository_is_seen_at_once() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    top = {name.split("/")[0] for name in listed.stdout.splitlines() if name[0] != "."}
    assert 0 < len(top) <= 18, sorted(top)


def reached(file: Path, seen: set[str]) -> set[str]:
    """Returns the modules below the pipeline that a module imports, directly or not."""
    for name in imported(file):
        path = ROOT / name.replace(".", "/")
        below = room(name) not in ("", "pipeline") and not name.startswith(RECORDS)
        for each in (path.with_suffix(".py"), path / "__init__.py"):
            if below and each.is_file() and named(each) not in seen:
                seen.add(named(each))
                reached(each, seen)
    return seen


@pytest.mark.parametrize("stage", cache.UNITS)
def test_a_stage_depends_on_the_rooms_that_it_imports(stage: str) -> None:
    """Else a change there would leave its outputs, and its units in the cache, as they were."""
    declared = cache.dependencies(stage)
    pipeline = [ROOT / name for name in declared if name.startswith("replicate/pipeline/")]
    files = [f for path in pipeline for f in (path.glob("*.py") if path.is_dir() else [path])]
    modules = {name for file in files for name in reached(file, set())}
    rooms = {room(name) for name in modules if not name.endswith("__init__")}
    given = {Path(Path(name).parts[1]).stem for name in declared}
    assert rooms - given <= {"errors", "progress", "seeds"}


def test_stages_that_only_read_need_no_torch_and_no_arviz() -> None:
    """They take seconds to import, and each stage is a process."""
    lines = ["import sys, importlib"]
    for stage in READING:
        lines.append(f"importlib.import_module('replicate.pipeline.stages.{stage}')")
        lines.append(f"assert not {{'torch', 'arviz', 'xarray'}} & {{*sys.modules}}, {stage!r}")
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    code = "\n".join(lines)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
