"""`compare` finds the two sets of results that are named, and says whether they are the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replicate.errors import UserError
from replicate.pipeline.config import load
from replicate.pipeline.stages import compare
from replicate.study import records
from tests.conftest import ROOT, commit, git
from tests.pipeline.small import told
from tests.study.small_results import (
    calibrated,
    changed,
    claim,
    estimate,
    make,
    small_results,
    trace,
    write,
    write_study,
)

CONFIG = load(ROOT / "params.yaml")
OTHER = small_results()
OTHER["estimates"][:2] = [estimate("small", name, 1_000, 50.0) for name in ("controlled", "plain")]
OTHER["traces"][0] = trace("small", 50.0)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of two studies with a calibration, and of the published figures, all committed."""
    folder = tmp_path / "project"
    for study in ("demo", "paper"):
        write_study(folder / "results" / study, small_results())
    write(folder / "results" / "demo", {"calibration": [calibrated(50.0)]})
    write(folder / "results" / "published", {"claims": [claim("C1", "inconclusive")]})
    monkeypatch.chdir(folder)
    return commit(folder)


Compared = Callable[..., tuple[bool, dict[tuple[str, str, str], str]]]


@pytest.fixture
def compared(project: Path, capsys: pytest.CaptureFixture[str]) -> Compared:
    """Returns whether nothing differs, and the status of each thing that is compared."""

    def call(a: str | None = None, b: str | None = None) -> Any:
        same = compare.run(CONFIG, a, b, as_json=True)
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["comparisons"]
        names = [(x["study"], x["kind"], f"{x['name']} {x['part']}") for x in found]
        return same, dict(zip(names, (x["status"] for x in found), strict=True))

    return call


LLC = ("demo", "λ̂", "small controlled")


def test_an_unchanged_tree_is_reproduced_and_not_written_to(
    project: Path, compared: Compared
) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in project.rglob("*")}

    before = times()
    same, found = compared()
    assert times() == before
    assert same
    assert {study for study, _, _ in found} == {"demo", "paper", "published"}
    assert set(found.values()) == {"reproduced", "not run"}
    lacking = {(study, name) for (study, _, name), status in found.items() if status == "not run"}
    models = [(study, model) for study in ("demo", "paper") for model in CONFIG.plan(study).models]
    assert lacking == {(study, f"{model} controlled") for study, model in models}


def test_a_difference_is_told_in_a_row_and_in_the_last_line(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project / "results" / "demo", OTHER)
    assert not compare.run(CONFIG, "demo", None, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    (row,) = (line for line in lines if line.split()[:4] == ["demo", "λ̂", "small", "controlled"])
    assert row.split()[4:] == ["50", "±", "0.5", "5", "±", "0.5", "64", "differs"]
    assert lines[-1].endswith("What differs: λ̂ of small.")


def test_the_work_tree_is_compared_with_what_is_committed(
    project: Path, compared: Compared
) -> None:
    write(project / "results" / "demo", OTHER)
    assert compared()[1][LLC] == "differs"
    git(project, "commit", "-qam", "other")
    assert compared()[1][LLC] == "reproduced"
    assert compared(None, "HEAD~1")[1][LLC] == compared("HEAD~1")[1][LLC] == "differs"


@pytest.mark.fault("A3")
@pytest.mark.parametrize("name", records.COLLECTED)
def test_a_file_that_is_missing_is_told(project: Path, name: str) -> None:
    (project / "results" / "demo" / f"{name}.json").unlink()
    told(lambda: compare.run(CONFIG, None, None, as_json=False), f"demo/{name}.json is missing")


@pytest.mark.fault("A3")
@pytest.mark.parametrize("name", ["estimates", "baselines", "search", "traces", "windows"])
def test_a_file_that_others_contradict_is_told(project: Path, name: str) -> None:
    write(project / "results" / "demo", {name: []})
    told(lambda: compare.run(CONFIG, None, None, as_json=False), f"demo/{name}.json has no row of")


@pytest.mark.fault("A3")
def test_what_is_lacking_is_told_and_is_no_reproduction(
    project: Path, compared: Compared, capsys: pytest.CaptureFixture[str]
) -> None:
    transfer = [make(records.Transferred, family="f", model="small")]
    write(project / "results" / "paper", {"transfer": transfer})
    git(project, "commit", "-qam", "transfer")
    assert compared()[0]
    write(project / "results" / "paper", {"transfer": []})
    (project / "results" / "demo" / "calibration.json").unlink()
    same, found = compared()
    assert not same
    assert found["demo", "calibration", "linear regression λ 50"] == "not run"
    compare.run(CONFIG, None, None, as_json=False)
    says = "What results lacks: calibration of linear regression, transfer.json of paper."
    assert capsys.readouterr().out.splitlines()[-1].endswith(says)


@pytest.mark.parametrize("kind", ["heads", "tags", f"exps/ab/{'c' * 38}"])
def test_a_branch_a_tag_and_an_experiment_are_compared(
    project: Path, compared: Compared, kind: str
) -> None:
    write(project / "results" / "demo", OTHER)
    git(project, "commit", "-qam", "other")
    git(project, "update-ref", f"refs/{kind}/named", "HEAD")
    git(project, "reset", "-q", "--hard", "HEAD~1")
    assert compared("demo", "named")[1][LLC] == "differs"
    assert compared("named:demo", "paper")[0] is False


def test_folders_of_results_and_of_a_study_are_compared(
    project: Path, tmp_path: Path, compared: Compared
) -> None:
    shutil.copytree(project / "results", tmp_path / "theirs")
    shutil.copytree(project / "results" / "demo", tmp_path / "alone")
    shutil.rmtree(project / ".git")  # it is not read
    assert compared("demo", str(tmp_path / "theirs"))[1][LLC] == "reproduced"
    assert compared(f"{tmp_path / 'theirs'}:paper", "demo")[0]
    alone = compared(str(tmp_path / "alone"), "demo")[1]
    assert set(alone.values()) == {"reproduced"}
    assert {study for study, _, _ in alone} == {f"{tmp_path / 'alone'} | demo"}


def test_another_quantity_is_no_reproduction(project: Path, compared: Compared) -> None:
    write(project / "results" / "demo", changed("estimates", {"model": "small"}, nbeta=100.0))
    same, found = compared("demo")
    assert (same, found[LLC]) == (False, "not comparable")


@pytest.mark.parametrize("text", ["", "[", "{}", "[1]", '[{"llc": NaN}]', "null", "[" * 100_000])
def test_a_damaged_file_is_named(project: Path, text: str) -> None:
    (project / "results" / "demo" / "estimates.json").write_text(text)
    with pytest.raises(UserError, match=r"^results: demo/estimates.json is damaged"):
        compare.run(CONFIG, None, None, as_json=False)


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        ("demo", "nobody", "'nobody' names no branch, .* name another commit, a study .control, "),
        ("demo", "--upload-pack=x", "'--upload-pack=x' names no branch"),
        ("demo", ":demo", "'' names no branch"),
        ("demo", "HEAD:nobody", "HEAD:nobody .*: no results of a study 'nobody'; .* demo, paper"),
        ("nobody", "demo", "'nobody' names no branch"),
        ("results/demo", "results", "results: no results of a study ''; name one of"),
        ("demo", "logs", "logs has no results"),
    ],
)
def test_a_name_that_stands_for_no_results_is_told(
    project: Path, a: str, b: str, says: str
) -> None:
    (project / "logs").mkdir()
    with pytest.raises(UserError, match=f"^{says}"):
        compare.run(CONFIG, a, b, as_json=False)


def test_an_experiment_s_name_that_two_have_is_told(project: Path) -> None:
    for start in "cd":
        git(project, "update-ref", f"refs/exps/ab/{start * 38}/twice", "HEAD")
    with pytest.raises(UserError, match=r"'twice' names 2 experiments; give one of [0-9a-f]{9}, "):
        compare.run(CONFIG, "demo", "twice", as_json=False)


def test_a_missing_git_or_repository_is_told_with_another_way(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(project / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    with pytest.raises(UserError, match=r"not a git repository.* or a folder of results"):
        compare.run(CONFIG, None, None, as_json=False)
    monkeypatch.setenv("PATH", str(project / "nothing"))
    with pytest.raises(UserError, match=r"git is not installed; .* or a folder of results"):
        compare.run(CONFIG, None, None, as_json=False)
