"""Files of results that contradict one another, or the plan, are told and not read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from replicate.study.plan import FamilyPlan, StudyPlan
from replicate.study.records.agreement import read_study
from tests.pipeline.small import told
from tests.study.small_results import (
    MODELS,
    Results,
    small_results,
    write_study,
)

FAMILY = FamilyPlan("f", tuple(MODELS), "t", "float32", (), "small", (), (), 0.95)
PLAN = StudyPlan("demo", FAMILY, None, ())
BASIS = ("estimates", "provenance", "traces", "baselines", "training", "windows", "search")


def study() -> Results:
    return small_results() | {"claims": []}


def without(model: str, rows: Sequence[Any]) -> list[Any]:
    return [row for row in rows if row.model != model]


def test_files_that_agree_are_read(tmp_path: Path) -> None:
    write_study(tmp_path, study())
    found = read_study(PLAN, tmp_path)
    assert {name: len(rows) for name, rows in found.items() if rows} == {
        name: len(rows) for name, rows in study().items() if rows
    }


def test_a_study_that_was_not_run_is_read(tmp_path: Path) -> None:
    write_study(tmp_path, {})
    assert not any(read_study(PLAN, tmp_path).values())


@pytest.mark.fault("A3")
@pytest.mark.parametrize("name", BASIS)
def test_a_file_that_was_emptied_is_told(tmp_path: Path, name: str) -> None:
    write_study(tmp_path, study() | {name: []})
    line = told(lambda: read_study(PLAN, tmp_path), f"{name}.json has no row of ")
    assert line.endswith("; run `dvc repro collect@demo`")


@pytest.mark.fault("A3")
@pytest.mark.parametrize("name", ["estimates", "provenance", "traces", "baselines", "training"])
def test_a_model_that_was_taken_out_of_a_file_is_told(tmp_path: Path, name: str) -> None:
    rows = study()
    write_study(tmp_path, rows | {name: without("large", rows[name])})
    told(lambda: read_study(PLAN, tmp_path), f"{name}.json has no row of large, which was ")


@pytest.mark.fault("A3")
def test_an_estimator_that_was_taken_out_is_told(tmp_path: Path) -> None:
    rows = study()
    rows["estimates"].pop()
    write_study(tmp_path, rows)
    told(lambda: read_study(PLAN, tmp_path), "estimates.json has no row of large by plain")


@pytest.mark.fault("A3")
@pytest.mark.parametrize("chains", [[5.1] * 4, [5.0] * 3, [], [4.1, 4.1, None, 5.9]])
def test_shuffles_that_are_not_those_of_the_chains_are_told(
    tmp_path: Path, chains: list[float | None]
) -> None:
    rows = study()
    rows["traces"][0] = rows["traces"][0].model_copy(update={"chain_llc": chains})
    write_study(tmp_path, rows)
    told(lambda: read_study(PLAN, tmp_path), "estimates.json has other shuffles of small than")


@pytest.mark.fault("A3")
def test_chains_that_diverged_are_left_out_of_their_shuffle(tmp_path: Path) -> None:
    rows = study()
    each = [chain for value in rows["traces"][0].chain_llc for chain in (value, None)]
    rows["traces"][0] = rows["traces"][0].model_copy(update={"chain_llc": each})
    write_study(tmp_path, rows)
    assert len(read_study(PLAN, tmp_path)["traces"][0].chain_llc) == 8


@pytest.mark.fault("A3")
def test_a_model_or_family_that_is_not_planned_is_told(tmp_path: Path) -> None:
    rows = study()
    rows["baselines"].append(rows["baselines"][0].model_copy(update={"model": "other"}))
    write_study(tmp_path, rows)
    told(lambda: read_study(PLAN, tmp_path), "has a row of model other, which f does not have")
    rows = study()
    rows["windows"].append(rows["windows"][0].model_copy(update={"family": "g"}))
    write_study(tmp_path, rows)
    told(lambda: read_study(PLAN, tmp_path), "windows.json has a row of family g, which demo does")
