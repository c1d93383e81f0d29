"""Without a command: every stage as it stands, from the files alone, and what to type next."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from replicate.pipeline.config import load
from replicate.pipeline.stages import declared, overview
from tests.conftest import ROOT, replicate

PARAMS = load(ROOT / "params.yaml")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In which nothing has run."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    declared.read.cache_clear()
    return tmp_path


def log(project: Path, *lines: dict[str, Any] | str) -> None:
    (project / "logs").mkdir(exist_ok=True)
    common = {
        "argument": None,
        "ended": "done",
        "started": "2026-01-02T03:04:05+00:00",
        "seconds": 7.5,
        "device": "a CPU",
    }
    text = [line if isinstance(line, str) else json.dumps(common | line) for line in lines]
    (project / "logs" / "runs.jsonl").write_text("\n".join(text) + "\n")


def standing(name: str) -> overview.Standing:
    (found,) = (each for each in overview.standings(declared.stages()) if each.stage.name == name)
    return found


def test_the_stages_are_those_that_dvc_lists() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    done = replicate("--json", cwd=ROOT)
    assert [stage["stage"] for stage in json.loads(done.stdout)["stages"]] == listed.stdout.split()


def test_their_outputs_are_those_that_dvc_knows(project: Path) -> None:
    from dvc.repo import Repo

    Repo.init(str(project), no_scm=True).close()
    with Repo(str(project)) as repo:
        known = {
            str(getattr(stage, "name", "")): {
                Path(out.fs_path).relative_to(project).as_posix() for out in stage.outs
            }
            for stage in repo.index.stages
        }
    assert {stage.name: set(stage.outs) for stage in declared.stages()} == known


def test_a_stage_concerns_the_studies_of_its_family(project: Path) -> None:
    concerned = {stage.name: stage.studies for stage in declared.stages()}
    assert (
        concerned["estimate@gpt2-xl"]
        == concerned["search@llama2"]
        == concerned["collect@paper"]
        == ("paper",)
    )
    assert concerned["demo"] == ("demo",)
    assert concerned["calibrate"] == concerned["paper"] == ("demo", "paper")


def test_where_nothing_has_run_nothing_is_claimed(project: Path) -> None:
    found = overview.standings(declared.stages())
    assert {each.state for each in found} == {"not run"}
    assert overview.following(found)[0].command == "dvc repro demo"


def test_an_output_that_is_there_is_there_and_half_of_them_is_part(project: Path) -> None:
    (project / "data/mini/windows").mkdir(parents=True)
    (project / "results").mkdir()
    (project / "results/coverage.json").write_text("[]")
    assert standing("extract@mini").state == "there"
    assert standing("calibrate").state == "in part"


def test_what_was_run_elsewhere_is_not_here(project: Path) -> None:
    (project / "dvc.lock").write_text(
        yaml.dump({"schema": "2.0", "stages": {"extract@mini": {"cmd": "x"}}})
    )
    assert standing("extract@mini").state == "not here"
    assert standing("extract@gpt2").state == "not run"


def test_collected_files_that_say_not_run_are_no_result(project: Path) -> None:
    shutil.copytree(ROOT / "results", project / "results")
    (project / "results/paper/metrics.json").write_text("{}")
    assert standing("collect@demo").state == "there"
    assert standing("collect@paper").state == "no result"


def test_the_last_run_is_told_and_lines_that_are_none_are_passed_over(project: Path) -> None:
    first, last = (
        {"stage": "estimate", "argument": "mini-34k", "seconds": seconds} for seconds in (1.0, 2.0)
    )
    log(
        project,
        first,
        "torn {",
        last,
        {"stage": "estimate"},
        "[]",
        {"stage": "estimate", "argument": "mini-34k", "seconds": "x"},
    )
    found = standing("estimate@mini-34k").last
    assert found is not None
    assert (found.seconds, found.device) == (2.0, "a CPU")


@pytest.mark.parametrize(("ended", "state"), [("error", "failed"), ("interrupted", "interrupted")])
def test_what_failed_is_what_to_run_next(project: Path, ended: str, state: str) -> None:
    log(project, {"stage": "search", "argument": "mini", "ended": ended})
    assert standing("search@mini").state == state
    assert (
        overview.following(overview.standings(declared.stages()))[0].command
        == "dvc repro search@mini"
    )


def test_it_ends_with_what_to_type_next_and_in_json_is_json_alone(project: Path) -> None:
    done = replicate(cwd=project)
    assert (done.returncode, done.stderr) == (0, "")
    assert "next: dvc repro demo" in done.stdout
    assert "estimate@mini-34k" in done.stdout
    whole = json.loads(replicate("--json", cwd=project).stdout)
    assert {stage["state"] for stage in whole["stages"]} == {"not run"}
    assert whole["next"][0]["command"] == "dvc repro demo"


def test_a_family_of_no_study_is_shown_too(project: Path) -> None:
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text[: text.index("  paper:\n    full: gpt2")])
    declared.read.cache_clear()
    table = overview.collapsed(overview.standings(declared.stages()))
    assert [column.name for column in table.columns[:3]] == ["stage", "demo", "other"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        "families: 3",
        "a: " + "[" * 100_000,
        "- " * 100_000,
        "families: {mini: 3}\nmodels: {}\nstudies: {}",
        "\x00",
        "é: &a [*a]",
    ],
)
def test_malformed_parameters_are_one_line(project: Path, text: str) -> None:
    (project / "params.yaml").write_text(text)
    done = replicate(cwd=project)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: params.yaml: ")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["--json", "plan"], "--json before a command; give it after plan"),
        (["compare", "demo"], "Missing argument 'B'"),
        (["compare", "demo", "paper"], "compare: results/demo holds no estimates.json; "),
        (["completion", "ksh"], "'ksh' is not one of"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(
    project: Path, line: list[str], says: str
) -> None:
    done = replicate(*line, cwd=project)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert says in done.stderr


def test_away_from_the_root_it_says_so(tmp_path: Path) -> None:
    done = replicate(cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "run this from the project's root" in done.stderr


@pytest.mark.parametrize(
    "line", [["--help"], ["plan", "--help"], ["compare", "--help"], ["estimate", "--help"], []]
)
def test_what_a_person_waits_for_first_imports_nothing_slow(line: list[str]) -> None:
    """The overview too, where no terminal is."""
    code = f"import sys\nfrom replicate.__main__ import main\ntry: main({line!r})\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    slow = {"torch", "numpy", "scipy", "pydantic", "dvc", "rich", "transformers", "xarray"}
    assert not slow & set(done.stderr.split())


# Completion


def completed(*words: str, cwd: Path = ROOT) -> list[str]:
    """What bash offers after `replicate` and these words, of which the last is not yet whole."""
    line = " ".join(f"'{word}'" for word in ("replicate", *words))
    code = f"""
        eval "$("{sys.executable}" -m replicate completion bash)" || exit 3
        COMP_WORDS=({line}); COMP_CWORD={len(words)}; COMPREPLY=()
        _replicate_completion replicate
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    done = subprocess.run(
        ["bash", "-c", code], cwd=cwd, capture_output=True, text=True, env=environment, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("ver",), ["verify"]),
        (("extract", ""), list(PARAMS.families)),
        (("estimate", "mini-llama"), ["mini-llama-200k", "mini-llama-600k"]),
        (("claims", ""), list(PARAMS.studies)),
        (("verify", "de"), ["demo"]),
        (("compare", "demo", "pap"), ["paper"]),
        (("plan", "search@l"), ["search@llama2"]),
        (("plan", "--dev"), ["--device"]),
        (("plan", "--device", "h1"), ["h100"]),
        (("estimate", "no-such"), []),
    ],
)
def test_bash_completes_commands_options_and_names(
    words: tuple[str, ...], offered: list[str]
) -> None:
    assert completed(*words) == offered


def test_nothing_is_offered_and_nothing_said_where_there_is_no_project(tmp_path: Path) -> None:
    assert completed("extract", "", cwd=tmp_path) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_runs_this_python_and_parses(shell: str) -> None:
    done = replicate("completion", shell, cwd=ROOT)
    assert f"{sys.executable} -m replicate" in done.stdout
    assert "%(" not in done.stdout
    assert done.stdout.count("_REPLICATE_COMPLETE") == 1
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True)
