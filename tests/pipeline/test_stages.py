"""dvc.yaml and the code say the same: each stage's deps are the modules it imports, and reading
stages need no torch.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from replicate.pipeline.config import load
from tests.conftest import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
# What these change, reaches a stage by its `params` or its command line, or does not reach its
# outputs at all.
PLUMBING = {
    "replicate/__init__.py",
    "replicate/pipeline/cli.py",
    "replicate/errors.py",
    "replicate/pipeline/config.py",
    "replicate/progress.py",
}
PLUMBING |= {
    f"replicate/{name}.py"
    for name in ("command", "interruption", "processes", "revisions", "runs", "stages/__init__")
}
PACKAGES = {
    "replicate/study/claims",
    "replicate/reporting/figures",
    "replicate/reporting/report",
    "replicate/sampling",
}  # a dep as a whole

COMPUTING = {
    "extract",
    "pretrain",
    "baseline",
    "search",
    "estimate",
    "transfer",
    "quantisation",
    "original",
    "calibrate",
}


def imported(file: Path) -> set[Path]:
    """The project's own modules that a module imports, by name."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    paths = (ROOT / name.replace(".", "/") for name in names if name.split(".")[0] == "replicate")
    return {
        path
        for base in paths
        for path in (base.with_suffix(".py"), base / "__init__.py")
        if path.is_file()
    }


def reached(file: Path) -> set[str]:
    """All modules that a stage's file imports, directly or not, plumbing apart; a package for its
    files.
    """
    seen, queue = set(), [file]
    while queue:
        module = queue.pop()
        if module not in seen:
            seen.add(module)
            if str(module.relative_to(ROOT)) not in PLUMBING or module == file:
                queue += imported(module)
    names = {str(module.relative_to(ROOT)) for module in seen} - PLUMBING
    return {package if (package := name.rsplit("/", 1)[0]) in PACKAGES else name for name in names}


def declared(stage: str) -> set[str]:
    body = STAGES[stage].get("do", STAGES[stage])
    return {dep for dep in body.get("deps", []) if dep.startswith("replicate/")}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_modules_that_a_stage_imports(stage: str) -> None:
    file = ROOT / "replicate" / "stages" / ("summary.py" if stage == "demo" else f"{stage}.py")
    code = {dep for dep in declared(stage) if dep.endswith(".py") or dep in PACKAGES}
    assert code == reached(file)


@pytest.mark.parametrize("stage", STAGES)
def test_data_beside_a_module_is_a_dep_with_it(stage: str) -> None:
    assert ("replicate/data/grammar.py" in declared(stage)) == (
        "replicate/data/lexicon.yaml" in declared(stage)
    )


@pytest.mark.parametrize("stage", STAGES)
def test_what_computes_depends_on_the_locked_packages(stage: str) -> None:
    """And on them alone: packages for development change no result."""
    locks = {
        dep
        for dep in STAGES[stage].get("do", STAGES[stage]).get("deps", [])
        if dep.startswith("requirements/")
    }
    assert locks == (
        {"requirements/base.lock", "requirements/cuda.lock"} if stage in COMPUTING else set()
    )


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_says_what_it_does(stage: str) -> None:
    assert STAGES[stage].get("do", STAGES[stage])["desc"]


def test_a_model_has_three_stages_a_family_four_a_study_five_and_seven_are_alone() -> None:
    """DVC's time grows faster than their number: nothing else adds to it."""
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    params = load(ROOT / "params.yaml")
    assert (
        len(listed.stdout.split())
        == 3 * len(params.models) + 4 * len(params.families) + 5 * len(params.studies) + 7
    )


@pytest.mark.parametrize(
    "stage",
    [
        "collect",
        "claims",
        "published",
        "figures",
        "tables",
        "reference",
        "report",
        "summary",
        "paper",
    ],
)
def test_reading_stages_need_no_torch(stage: str) -> None:
    code = f"import sys, replicate.pipeline.stages.{stage}; sys.exit('torch' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        check=True,
    )


def test_library_rooms_know_no_stage_and_no_params() -> None:
    """Only stages and the command line read parameters and know paths."""
    for file in (ROOT / "replicate").rglob("*.py"):
        if file.parent.name != "stages" and file.name not in (
            "__main__.py",
            "command.py",
            "params.py",
        ):
            assert not {path.name for path in imported(file)} & {"params.py", "subject.py"}, file
            assert "click" not in file.read_text(encoding="utf-8"), file


def test_what_is_cached_beside_the_code_is_no_change_of_it() -> None:
    """Numba's compiled kernels stand in a folder that is a dep as a whole, and differ from machine
    to machine.
    """
    command = [
        sys.executable,
        "-m",
        "dvc",
        "check-ignore",
        "replicate/sampling/__pycache__/sgld._sweep.nbi",
        "replicate/sampling/samplers/sgld.py",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["replicate/sampling/__pycache__/sgld._sweep.nbi"]
