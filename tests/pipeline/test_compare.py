"""`compare` computes a difference between two estimates of one quantity, and says of others why
there is none.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from replicate.pipeline.config import Params, load, parse
from replicate.pipeline.stages import asked, provenance
from replicate.study import contrast
from replicate.study.contrast import Obstacles
from replicate.study.records import Claim, Estimate, Provenance
from tests.conftest import ROOT, commit, git, replicate
from tests.test_verification import DEMO, LEVEL

TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
PARAMS = load(ROOT / "params.yaml")


def asking(before: str, after: str) -> Params:
    assert before in TEXT
    return parse(TEXT.replace(before, after, 1))


def made_by(params: Params) -> dict[str, Any]:
    """The demo's results as if these parameters had been asked for."""
    rows = [row for row in DEMO["provenance"] if isinstance(row, Provenance)]
    return DEMO | {
        "provenance": [
            row.model_copy(update={"parameters": provenance.parameters(params, row.model)})
            for row in rows
        ]
    }


def obstacles(a: Params, b: Params, model: str = "mini-34k") -> Obstacles:
    return asked.obstacles(
        asked.known(model, made_by(a), a, (b,)), asked.known(model, made_by(b), b, (a,))
    )


def renamed(families: dict[str, str], models: dict[str, str]) -> dict[str, Any]:
    """The demo's results of families and models of other names."""
    names = {"family": families, "model": models}
    return {
        file: [
            row.model_copy(
                update={
                    key: known.get(getattr(row, key), getattr(row, key))
                    for key, known in names.items()
                    if hasattr(row, key)
                }
            )
            for row in rows
        ]
        for file, rows in DEMO.items()
    }


# What can be compared


def test_llc_at_another_nbeta_is_another_quantity_and_the_loss_is_not() -> None:
    found = obstacles(PARAMS, asking("nbeta: 30.0", "nbeta: 100.0"))
    assert found == Obstacles(llc=("nβ 30 and 100",))


@pytest.mark.parametrize(
    ("before", "after", "llc", "loss"),
    [
        ("restriction: [all]", "restriction: [norms]", True, False),
        ("length: 48", "length: 32", True, True),
        ("corpus: films", "corpus: imdb", True, True),
        ("draws: 60", "draws: 90", False, False),
        ("localization: 500.0", "localization: 300.0", False, False),
        ("layers: 2, width: 24", "layers: 3, width: 24", False, False),
        ("seed: 2023", "seed: 2024", False, False),
    ],
)
def test_what_is_another_quantity(before: str, after: str, llc: bool, loss: bool) -> None:
    other = asking(before, after)
    a, b = (asked.known("mini-34k", made_by(params), params, ()) for params in (PARAMS, other))
    if "corpus" in before or "length" in before:  # windows are not the same then
        assert b.record is not None
        b = asked.Known(
            b.hashes, b.values, b.record.model_copy(update={"windows": "other"}), b.estimate
        )
    found = asked.obstacles(a, b)
    assert (bool(found.llc), bool(found.loss)) == (llc, loss)


def test_what_the_estimate_may_depend_on_is_noted() -> None:
    assert obstacles(PARAMS, asking("localization: 500.0", "localization: 300.0")).notes == (
        "γ 500 and 300",
    )
    assert obstacles(PARAMS, asking("weights: float32", "weights: bfloat16")).notes == (
        "weights float32 and bfloat16",
    )
    assert obstacles(PARAMS, asking("warmup: 50", "warmup: 60")).notes == ("at another w*",)


def test_parameters_that_cannot_be_known_bar_a_comparison() -> None:
    """Neither side's params.yaml has the hash that the results carry: nβ may be another."""
    other = made_by(asking("nbeta: 30.0", "nbeta: 100.0"))
    found = asked.obstacles(
        asked.known("mini-34k", made_by(PARAMS), PARAMS, ()),
        asked.known("mini-34k", other, None, (PARAMS,)),
    )
    assert found.llc == ("sampled by other parameters, and whether at the same nβ cannot be told",)


def test_a_hash_that_any_file_has_says_what_was_asked_for() -> None:
    changed = asking("nbeta: 30.0", "nbeta: 100.0")
    found = asked.obstacles(
        asked.known("mini-34k", made_by(PARAMS), changed, (PARAMS,)),
        asked.known("mini-34k", made_by(changed), None, (changed,)),
    )
    assert found.llc == ("nβ 30 and 100",)
    assert len(asked.stale(made_by(PARAMS), changed)) == 4
    assert asked.stale(made_by(PARAMS), PARAMS) == []


def test_other_parameters_that_move_are_another_quantity() -> None:
    rows = [row.model_copy(update={"sampled_parameters": 5}) for row in DEMO["estimates"]]
    a, b = (
        asked.known("mini-34k", side, PARAMS, ()) for side in (DEMO, DEMO | {"estimates": rows})
    )
    assert asked.obstacles(a, b).llc == ("34,080 and 5 parameters move",)


# Which stand side by side


def test_models_are_matched_by_name_whatever_their_order() -> None:
    backwards = DEMO | {"estimates": list(reversed(DEMO["estimates"]))}
    assert set(contrast.matched(DEMO, backwards)) == {
        (model, model) for models in contrast.families(DEMO).values() for model in models
    }


def test_families_without_a_common_model_stand_by_rank() -> None:
    other = renamed(
        {"mini": "gpt2"},
        {
            "mini-34k": "gpt2",
            "mini-110k": "gpt2-medium",
            "mini-350k": "gpt2-large",
            "mini-1050k": "gpt2-xl",
        },
    )
    matches = contrast.matched(DEMO, other)
    assert matches[:2] == [
        ("mini-llama-200k", "mini-llama-200k"),
        ("mini-llama-600k", "mini-llama-600k"),
    ]
    assert matches[2:] == list(
        zip(contrast.families(DEMO)["mini"], contrast.families(other)["gpt2"], strict=True)
    )


def test_a_family_with_more_models_has_some_with_none_beside_them() -> None:
    rows = [
        row for row in DEMO["estimates"] if isinstance(row, Estimate) and row.model != "mini-1050k"
    ]
    other = renamed(
        {"mini": "x"}, {name: f"x{i}" for i, name in enumerate(contrast.families(DEMO)["mini"])}
    )
    assert ("mini-1050k", None) in contrast.matched(DEMO, DEMO | {"estimates": rows})
    assert (None, "x3") in contrast.matched(DEMO | {"estimates": rows}, other)


def test_no_difference_between_models_that_are_not_the_same() -> None:
    other = renamed(
        {"mini": "x"}, {name: f"x{i}" for i, name in enumerate(contrast.families(DEMO)["mini"])}
    )
    found = contrast.study("demo", DEMO, other, "controlled", lambda model: Obstacles())
    ranked = [pair for pair in found if pair.name == "mini-34k | x0"]
    assert [pair.notes for pair in ranked] == [(contrast.RANKED,)] * 2
    assert all(pair.p_value is None and pair.apart is None for pair in ranked)


def test_no_difference_where_there_is_an_obstacle() -> None:
    found = contrast.study(
        "demo", DEMO, moved(5), "controlled", lambda model: Obstacles(llc=("nβ 30 and 100",))
    )
    llc = [pair for pair in found if pair.group == "λ̂"]
    assert len(llc) == 6
    assert all(
        (pair.status, pair.apart, pair.notes) == ("other parameters", None, ("nβ 30 and 100",))
        for pair in llc
    )
    assert all(pair.identical for pair in found if pair.group == "loss at w*")


def moved(errors: float) -> dict[str, Any]:
    rows = [row for row in DEMO["estimates"] if isinstance(row, Estimate)]
    rows = [
        row.model_copy(update={"llc": (row.llc or 0.0) + errors * (row.standard_error or 0.0)})
        for row in rows
    ]
    return DEMO | {"estimates": rows}


def test_a_verdict_is_matched_by_its_claim_in_any_study() -> None:
    other = [
        row.model_copy(update={"verdict": "not supported", "claim": "in other words"})
        for row in DEMO["claims"]
        if isinstance(row, Claim)
    ]
    (pair,) = (
        pair
        for pair in contrast.verdicts("demo", DEMO, DEMO | {"claims": other})
        if pair.name == "C1"
    )
    assert pair.status == "differs"


# The command


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The demo at main; at `warmer` an experiment of DVC's at another nβ, with λ̂ half as large
    again; at `longer` one with more draws.
    """
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copytree(ROOT / "results", folder / "results")
    write(folder, PARAMS, TEXT, 1.0)
    commit(folder)
    git(folder, "branch", "-M", "main")
    for name, before, after, scale in (
        ("warmer", "nbeta: 30.0", "nbeta: 100.0", 1.5),
        ("longer", "draws: 60", "draws: 90", 1.0),
    ):
        write(folder, asking(before, after), TEXT.replace(before, after, 1), scale)
        git(folder, "commit", "-qam", name)
        git(folder, "update-ref", f"refs/exps/ab/{'c' * 38}/{name}", "HEAD")
        git(folder, "reset", "-q", "--hard", "HEAD~1")
    return folder


def write(folder: Path, params: Params, text: str, scale: float) -> None:
    (folder / "params.yaml").write_text(text)
    rows = json.loads((ROOT / "results/demo/provenance.json").read_text())
    rows = [row | {"parameters": provenance.parameters(params, row["model"])} for row in rows]
    (folder / "results/demo/provenance.json").write_text(json.dumps(rows))
    rows = json.loads((ROOT / "results/demo/estimates.json").read_text())
    rng = np.random.default_rng(0)
    for row in rows:
        change = row["llc"] * (scale - 1) + rng.normal(0, row["standard_error"]) * (
            params != PARAMS
        )
        row["llc"] += change
        row["interval"] = [end + change for end in row["interval"]]
    (folder / "results/demo/estimates.json").write_text(json.dumps(rows))


def compared(project: Path, *arguments: object) -> dict[str, Any]:
    done = replicate("compare", *arguments, "--json", cwd=project)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def verdicts(found: dict[str, Any], group: str = "λ̂") -> dict[str, str]:
    return {
        pair["name"]: pair["verdict"] for pair in found["comparisons"] if pair["group"] == group
    }


def test_a_variant_at_another_nbeta_is_shown_and_not_compared(project: Path) -> None:
    found = compared(project, "main", "warmer", "demo")
    assert set(list(verdicts(found).values())[:4]) == {"not comparable"}
    assert found["parameters"] == [
        {"key": "families.mini.sampling.nbeta", "a": "30.0", "b": "100.0"}
    ]
    assert "λ̂ of 4 cannot be compared (nβ 30 and 100)" in found["answer"]
    pair = found["comparisons"][0]
    assert pair["b"]["value"] == pytest.approx(1.5 * pair["a"]["value"], rel=0.1)
    assert (pair["difference"], pair["apart"]) == (None, None)


def test_a_variant_with_more_draws_is_compared(project: Path) -> None:
    found = compared(project, "demo", "longer")
    assert set(verdicts(found).values()) == {"within errors"}
    for pair in found["comparisons"]:
        if pair["group"] == "λ̂":
            a, b = pair["a"], pair["b"]
            assert pair["difference"] == pytest.approx(b["value"] - a["value"])
            assert pair["apart"] == pytest.approx(
                abs(pair["difference"]) / np.hypot(a["error"], b["error"])
            )


def test_plain_lines_tell_all(project: Path) -> None:
    done = replicate("compare", "demo", "warmer:demo", cwd=project)
    (row,) = (
        line
        for line in done.stdout.splitlines()
        if line.split()[:4] == ["demo", "λ̂", "mini-34k", "controlled"]
    )
    assert row.endswith("not comparable: nβ 30 and 100")
    assert "families.mini.sampling.nbeta" in done.stdout


def test_two_studies_stand_side_by_side_and_what_was_not_run_says_so(project: Path) -> None:
    found = compared(project, "demo", "paper")
    assert set(verdicts(found).values()) == {"not run"}
    assert "mini-34k | gpt2" in verdicts(found)
    assert "No λ̂ was run in both demo and paper." in found["answer"]


def test_folders_of_results_and_of_a_study_are_sides(project: Path, tmp_path: Path) -> None:
    for folder in ("theirs/results", "alone"):
        shutil.copytree(
            project / "results" / ("" if folder != "alone" else "demo"), tmp_path / folder
        )
    assert set(verdicts(compared(project, "demo", tmp_path / "theirs/results")).values()) == {
        "identical"
    }
    assert set(verdicts(compared(project, tmp_path / "alone", "demo")).values()) == {"identical"}


def test_parameters_changed_since_are_told(project: Path) -> None:
    (project / "params.yaml").write_text(TEXT.replace("nbeta: 30.0", "nbeta: 10.0", 1))
    assert list(compared(project, "demo", "main")["stale"]) == ["demo"]


def test_another_estimator_can_be_asked_for(project: Path) -> None:
    found = compared(project, "main", "longer", "demo", "--estimator", "plain")
    assert {pair["part"] for pair in found["comparisons"] if pair["group"] == "λ̂"} == {"plain"}


def test_nothing_is_changed_on_disk(project: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in project.rglob("*") if path.is_file()}
    compared(project, "demo", "warmer")
    assert {
        path: path.stat().st_mtime_ns for path in project.rglob("*") if path.is_file()
    } == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("demo", "nobody"),
            "compare: 'nobody' is no folder, and git has no commit of that name; give one of demo, paper, a folder",
        ),
        (("demo", "main:nobody"), "compare: main has no results of a study 'nobody'; give one of"),
        (("demo", ":demo"), "compare: ':demo' names nothing"),
        (("demo", "main:"), "compare: 'main:' names nothing"),
        (("demo", ""), "compare: '' names nothing"),
        (("demo", "--upload-pack=x"), "No such option"),
        (("demo", "paper", "demo"), "compare: demo and paper name their studies; leave out demo"),
        (("main", "longer", "nobody"), "compare: main has no results of a study 'nobody'"),
        (
            ("demo", "longer", "--estimator", "x"),
            "compare: no estimator 'x' in demo or longer; give one of controlled, ",
        ),
        (("demo", "results/schemas"), "compare: results/schemas holds no"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    project: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = replicate("compare", *arguments, cwd=project)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: {says}")


def test_an_experiment_s_name_that_two_have_is_told(project: Path) -> None:
    git(project, "update-ref", f"refs/exps/ab/{'d' * 38}/warmer", "HEAD")
    done = replicate("compare", "demo", "warmer", cwd=project)
    assert done.returncode == 2
    assert "'warmer' names 2 experiments; give one of the commits" in done.stderr


def test_the_judgement_is_that_of_verify(project: Path) -> None:
    assert compared(project, "demo", "longer")["level"] == LEVEL
