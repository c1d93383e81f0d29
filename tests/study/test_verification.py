"""`verify` tells a reproduction from a difference: identical, within the errors, beyond them, asked
otherwise, or not run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from replicate.pipeline.config import load
from replicate.study import reproduction as verification
from replicate.study.findings import Found, freedom
from replicate.study.records import COLLECTED, Claim, Estimate, Provenance, Record, Trial, parse
from replicate.study.reproduction import Comparison
from tests.conftest import ROOT, commit, git, replicate

LEVEL = load(ROOT / "params.yaml").claims.level
DEMO: dict[str, Sequence[Record]] = {
    name: parse((ROOT / "results" / "demo" / f"{name}.json").read_bytes(), kind)
    for name, kind in (COLLECTED | {"claims": Claim}).items()
    if (ROOT / "results" / "demo" / f"{name}.json").is_file()
}


def changed(file: str, change: dict[str, Any], **where: object) -> dict[str, Sequence[Record]]:
    """The demo's results with some fields of some rows of one file set to other values, or moved by
    calling what is given.
    """
    rows = []
    for row in DEMO[file]:
        if all(getattr(row, key) == value for key, value in where.items()):
            row = row.model_copy(
                update={
                    key: value(row) if callable(value) else value for key, value in change.items()
                }
            )
        rows.append(row)
    assert rows != DEMO[file]
    return DEMO | {file: rows}


def moved(errors: float) -> dict[str, Sequence[Record]]:
    """One λ̂ moved by so many of its standard errors, its interval with it."""
    change = {"llc": lambda row: row.llc + errors * row.standard_error}
    change["interval"] = lambda row: tuple(
        end + errors * row.standard_error for end in row.interval
    )
    return changed("estimates", change, model="mini-110k", estimator="controlled")


def judged(
    here: dict[str, Sequence[Record]], reference: dict[str, Sequence[Record]] = DEMO
) -> list[Comparison]:
    return verification.judge(verification.study("demo", here, reference), LEVEL)


def statuses(found: list[Comparison]) -> set[str]:
    return {pair.status for pair in found}


def one(found: list[Comparison], group: str, name: str, part: str | None = None) -> Comparison:
    (pair,) = (
        pair
        for pair in found
        if pair.group == group and pair.name == name and part in (None, pair.part)
    )
    return pair


def test_the_same_results_are_identical() -> None:
    found = [pair for pair in judged(DEMO) if pair.status != "not run"]
    assert len(found) >= 30 + 6 + 12 + 2
    assert all(pair.identical and pair.status == "reproduced" for pair in found)


def test_one_standard_error_is_a_reproduction_and_not_identical() -> None:
    pair = one(judged(moved(1)), "λ̂", "mini-110k", "controlled")
    assert (pair.status, pair.identical) == ("reproduced", False)
    assert pair.apart == pytest.approx(1 / np.sqrt(2), rel=1e-3)


def test_ten_standard_errors_differ_and_are_named() -> None:
    found = judged(moved(10))
    assert [(pair.group, pair.name, pair.part) for pair in found if pair.status == "differs"] == [
        ("λ̂", "mini-110k", "controlled")
    ]
    assert "λ̂ of mini-110k, controlled by 7.1 standard errors" in verification.answer(found, "HEAD")


def test_how_far_apart_is_judged_as_scipy_judges_the_shuffles_themselves() -> None:
    """Welch's test, from the standard errors and intervals that are published."""
    rng = np.random.default_rng(0)
    for sizes in ((4, 4), (4, 7), (2, 9)):
        sides, samples = (
            [],
            [rng.normal(0, scale, n) for n, scale in zip(sizes, (1.0, 3.0), strict=True)],
        )
        for x in samples:
            error = float(x.std(ddof=1) / np.sqrt(len(x)))
            half = float(stats.t.ppf(0.975, len(x) - 1)) * error
            sides.append(
                Found(float(x.mean()), error, freedom((x.mean() - half, x.mean() + half), error))
            )
        apart, degrees, p = verification.welch(*sides)
        expected: Any = stats.ttest_ind(*samples, equal_var=False)
        assert (apart, degrees, p) == pytest.approx(
            (abs(expected.statistic), expected.df, expected.pvalue)
        )


@pytest.mark.parametrize(
    "widened", [1.0, 2.0], ids=["same spread", "another setting: twice the spread"]
)
def test_an_honest_rerun_is_rarely_said_to_differ(widened: float) -> None:
    """At most the share `level` of reruns: 6 models of 4 shuffles, and 5 estimators that share most
    of their noise.
    """
    rng, reruns, row = np.random.default_rng(1), 1000, DEMO["estimates"][0]
    estimators = ("controlled", "paired", "plain", "devinterp", "published")

    def run(scale: float) -> list[Record]:
        rows = []
        for model in range(6):
            shared_G = rng.normal(0, scale, 4)
            for estimator in estimators:
                groups = 100 * (model + 1) + shared_G + rng.normal(0, 0.3 * scale, 4)
                error, llc = float(groups.std(ddof=1) / 2), float(groups.mean())
                half = float(stats.t.ppf(0.975, 3)) * error
                change = {
                    "model": str(model),
                    "estimator": estimator,
                    "llc": llc,
                    "standard_error": error,
                }
                rows.append(row.model_copy(update=change | {"interval": (llc - half, llc + half)}))
        return rows

    alarms = 0
    for _ in range(reruns):
        found = verification.judge(
            verification.study("demo", {"estimates": run(1.0)}, {"estimates": run(widened)}), LEVEL
        )
        assert len([pair for pair in found if pair.p_value is not None]) == 30
        alarms += "differs" in statuses(found)
    assert stats.binomtest(alarms, reruns, LEVEL, alternative="greater").pvalue > 0.001, alarms


def test_a_true_difference_is_found_among_many_that_agree() -> None:
    """Half of λ̂, where its error is 2 %: a λ̂ of 100 for one of 200, in every rerun."""
    rng, row, found = np.random.default_rng(2), DEMO["estimates"][0], 0

    def run(means: list[float]) -> list[Record]:
        rows = []
        for model, mean in enumerate(means):
            llc, error = mean + rng.normal(0, 2), 2.0
            change = {
                "model": str(model),
                "llc": llc,
                "standard_error": error,
                "interval": (llc - 3.1824 * error, llc + 3.1824 * error),
            }
            rows.append(row.model_copy(update=change))
        return rows

    for _ in range(100):
        pairs = verification.study(
            "demo", {"estimates": run([100.0] * 30)}, {"estimates": run([100.0] * 29 + [200.0])}
        )
        differing = [
            pair.name for pair in verification.judge(pairs, LEVEL) if pair.status == "differs"
        ]
        found += differing == ["29"]
    assert found == 100


def test_an_error_of_nothing_leaves_no_room() -> None:
    exact = {"llc": 1.0, "standard_error": 0.0, "interval": (1.0, 1.0)}
    first = changed("estimates", exact, model="mini-34k", estimator="controlled")
    second = changed(
        "estimates",
        exact | {"llc": 1.5, "interval": (1.5, 1.5)},
        model="mini-34k",
        estimator="controlled",
    )
    assert one(judged(first, second), "λ̂", "mini-34k", "controlled").status == "differs"


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        ("supported", "not supported", "differs"),
        ("supported", "inconclusive", "changed"),
        ("supported", "not run", "not run"),
        ("supported", "supported", "reproduced"),
    ],
)
def test_an_opposite_verdict_differs_and_an_open_one_has_changed(
    before: str, after: str, status: str
) -> None:
    here, there = (
        DEMO | {"claims": [row.model_copy(update={"verdict": verdict}) for row in DEMO["claims"]]}
        for verdict in (after, before)
    )
    assert one(judged(here, there), "claims", "C1").status == status


def test_another_setting_is_told_with_the_estimates_that_it_touches() -> None:
    row = next(
        row
        for row in DEMO["search"]
        if isinstance(row, Trial) and row.chosen and row.family == "mini"
    )
    other = changed("search", {"lr": 2 * row.lr}, chosen=True, family="mini")
    found = judged(other | {"estimates": moved(1)["estimates"]})
    assert one(found, "sampler setting", "mini").status == "changed"
    assert one(found, "sampler setting", "mini-llama").status == "reproduced"
    assert one(found, "λ̂", "mini-110k", "controlled").notes == ("at another setting",)


def test_a_training_loss_has_no_error_to_be_judged_by() -> None:
    found = judged(changed("training", {"loss": lambda row: 1.01 * row.loss}, model="mini-34k"))
    assert one(found, "loss after training", "mini-34k", "all tokens").status == "changed"
    assert one(found, "loss after training", "mini-34k", "all tokens").notes == (
        "+1.00%, without an error",
    )
    assert "differs" not in statuses(found)


def test_a_loss_at_w_star_is_judged_by_its_own_error() -> None:
    for errors, status in ((1, "reproduced"), (10, "differs")):
        found = judged(
            changed(
                "baselines",
                {"loss": lambda row, k=errors: row.loss + k * row.standard_error},
                model="mini-34k",
            )
        )
        assert one(found, "loss at w*", "mini-34k").status == status


def with_provenance(**change: object) -> dict[str, Sequence[Record]]:
    common: dict[str, Any] = {
        "family": "mini",
        "seed": 1,
        "windows": "w",
        "repository": None,
        "revision": None,
        "threads": 1,
    }
    common |= {
        "traces": "t",
        "device": "a",
        "versions": {"torch": "2"},
        "weights": {"model.safetensors": "1"},
        "status": "run",
    }
    common |= {"parameters": {"sampling": "1", "transfer": "1"}}
    rows = [
        Provenance.model_validate(common | {"model": "mini-34k"} | change),
        Provenance.model_validate(common | {"model": "mini-110k"}),
    ]
    return DEMO | {"provenance": rows}


def test_other_parameters_are_no_reproduction_whatever_the_numbers() -> None:
    found = judged(
        with_provenance(parameters={"sampling": "2", "transfer": "1"}), with_provenance()
    )
    assert {
        pair.name for pair in found if pair.status == "other parameters" and pair.group == "λ̂"
    } == {"mini-34k"}
    assert one(found, "λ̂", "mini-34k", "controlled").notes == ("mini-34k: sampling",)
    assert one(found, "λ̂", "mini-110k", "controlled").status == "reproduced"
    assert one(found, "claims", "C1").notes == ("mini-34k: sampling",)
    assert "other parameters were asked for, for mini-34k" in verification.answer(found, "HEAD")


def test_parameters_that_nothing_compared_depends_on_do_not_matter() -> None:
    found = judged(
        with_provenance(parameters={"sampling": "1", "transfer": "2"}), with_provenance()
    )
    assert "other parameters" not in statuses(found)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"device": "b"}, "device"),
        ({"versions": {"torch": "3"}}, "torch"),
        ({"seed": 2}, "seed"),
        ({"weights": {"model.safetensors": "2"}}, "weights"),
        ({"traces": "u"}, "traces"),
    ],
)
def test_what_results_are_from_is_told_and_decides_nothing(
    change: dict[str, Any], what: str
) -> None:
    here, there = with_provenance(**change), with_provenance()
    (difference,) = verification.provenance("demo", here, there)
    assert (difference.what, difference.models) == (what, ("mini-34k",))
    assert {pair.status for pair in judged(here, there) if pair.status != "not run"} == {
        "reproduced"
    }


def test_an_estimate_around_another_w_star_says_so() -> None:
    here = with_provenance(weights={"model.safetensors": "2"}) | {"estimates": []}
    here["estimates"] = changed("estimates", {"llc": lambda row: row.llc + 0.1}, model="mini-34k")[
        "estimates"
    ]
    assert one(judged(here, with_provenance()), "λ̂", "mini-34k", "controlled").notes == (
        "at another w*",
    )


def test_what_one_side_lacks_was_not_run_there() -> None:
    without = {name: rows for name, rows in DEMO.items() if name != "estimates"}
    assert {pair.notes for pair in judged(without) if pair.group == "λ̂"} == {("here",)}
    assert {pair.notes for pair in judged(DEMO, without) if pair.group == "λ̂"} == {
        ("in the reference",)
    }
    lost = [
        row for row in DEMO["estimates"] if isinstance(row, Estimate) and row.model != "mini-34k"
    ]
    found = judged(DEMO | {"estimates": lost})
    assert {pair.name for pair in found if pair.group == "λ̂" and pair.status == "not run"} == {
        "mini-34k"
    }
    assert "differs" not in statuses(found)


# The command, on a tree of its own.


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copytree(ROOT / "results", folder / "results")
    return commit(folder)


def edit(project: Path, name: str, **change: object) -> None:
    """Of the first row of a file."""
    path = project / "results" / name
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([rows[0] | change, *rows[1:]]))


def test_an_unchanged_tree_is_reproduced_to_the_byte(project: Path) -> None:
    done = replicate("verify", cwd=project)
    assert (done.returncode, done.stderr) == (0, "")
    files = len(
        [file for file in (project / "results").rglob("*.json") if "schemas" not in file.parts]
    )
    assert f"{files} of {files} files identical" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Reproduced: ")


def test_a_difference_is_exit_code_1_in_the_table_and_for_programs(project: Path) -> None:
    rows = json.loads((project / "results" / "demo" / "estimates.json").read_text(encoding="utf-8"))
    before = next(
        row["llc"] for row in rows if (row["model"], row["estimator"]) == ("mini-34k", "controlled")
    )
    edit(project, "demo/estimates.json", llc=60.0, interval=[58.63, 61.37])
    done = replicate("verify", "demo", cwd=project)
    assert done.returncode == 1
    (row,) = (
        line
        for line in done.stdout.splitlines()
        if line.split()[:4] == ["demo", "λ̂", "mini-34k", "controlled"]
    )
    assert row.split()[-1] == "differs"
    assert done.stdout.splitlines()[-1].startswith("Not reproduced: 1 of ")
    done = replicate("verify", "demo", "--json", cwd=project)
    whole = json.loads(done.stdout)
    (pair,) = (pair for pair in whole["comparisons"] if pair["status"] == "differs")
    assert done.returncode == 1
    assert (pair["name"], pair["here"]["value"], pair["reference"]["value"]) == (
        "mini-34k",
        60.0,
        before,
    )
    assert whole["files"]["demo/estimates.json"] == "other bytes"


def test_the_reference_is_what_is_committed_and_not_what_is_written(project: Path) -> None:
    edit(project, "demo/estimates.json", llc=60.0, interval=[58.63, 61.37])
    git(project, "commit", "-qam", "others")
    assert replicate("verify", cwd=project).returncode == 0
    assert replicate("verify", "--reference", "HEAD~1", cwd=project).returncode == 1


def test_a_folder_is_a_reference_too(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "results", tmp_path / "theirs")
    edit(project, "demo/estimates.json", llc=60.0, interval=[58.63, 61.37])
    shutil.rmtree(project / ".git")
    assert replicate("verify", "--reference", tmp_path / "theirs", cwd=project).returncode == 1


def test_a_missing_file_is_not_run_and_no_difference(project: Path) -> None:
    (project / "results" / "demo" / "estimates.json").unlink()
    (project / "results" / "calibration.json").unlink()
    done = replicate("verify", "demo", cwd=project)
    assert done.returncode == 0
    assert {
        line.split()[0] for line in done.stdout.splitlines() if line.endswith("not run here")
    } == {"demo", "calibration"}
    assert "demo/estimates.json (only in the reference)" in done.stdout


@pytest.mark.parametrize(
    "text", ["", "[", "{}", "[1]", '[{"llc": NaN}]', "\x00", "null", "[" * 100_000]
)
def test_a_damaged_file_is_one_line(project: Path, text: str) -> None:
    (project / "results" / "demo" / "estimates.json").write_text(text)
    done = replicate("verify", cwd=project)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: results: demo/estimates.json is damaged")


def test_a_field_that_no_estimate_has_is_told(project: Path) -> None:
    edit(project, "demo/estimates.json", lcc=60.0)
    done = replicate("verify", cwd=project)
    assert done.returncode == 2
    assert "demo/estimates.json is damaged, or of another version (ValidationError)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("dmeo",), "study 'dmeo': params.yaml has none of that name; give one of demo, paper"),
        (("--reference", "no-such"), "'no-such' is no folder, and git has no commit of that name"),
        (
            ("--reference", "--upload-pack=x"),
            "'--upload-pack=x' is no folder, and git has no commit of that name",
        ),
        (("--reference", ""), "'' is no folder, and git has no commit of that name"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    project: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = replicate("verify", *arguments, cwd=project)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: {says}")


def test_without_git_or_a_repository_a_folder_is_asked_for(project: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = replicate("verify", cwd=project, PATH=str(tmp_path / "bin"))
    assert done.returncode == 2
    assert (
        "git is not installed here; install it, or give a folder of results with --reference"
        in done.stderr
    )
    shutil.rmtree(project / ".git")
    done = replicate("verify", cwd=project, GIT_CEILING_DIRECTORIES=str(tmp_path))
    assert done.returncode == 2
    assert (
        "no git repository here; work in a clone, or give a folder of results with --reference"
        in done.stderr
    )


def test_verification_needs_no_torch() -> None:
    code = "import sys, replicate.pipeline.stages.verify; sys.exit('torch' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        check=True,
    )
