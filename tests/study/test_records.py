"""What is published follows its schema and changes only when a result does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from replicate.data.json_io import write_json
from replicate.errors import UserError
from replicate.estimation import regimes
from replicate.study import records
from replicate.study.records import Baseline, Estimate, JudgedClaim, Quantised, Setting, Trial
from replicate.study.records.settings import REGIMES
from tests.conftest import ROOT
from tests.pipeline.small import told
from tests.study.known_trainings import row as setting
from tests.study.small_results import baseline, claim, estimate, trial

RESULTS = ROOT / "results"


@pytest.mark.parametrize("name", records.schemas())
def test_the_results_in_git_follow_their_schemas(name: str) -> None:
    schema = json.loads((RESULTS / "schemas" / f"{name}.schema.json").read_text())
    assert schema == records.schemas()[name]
    files = list(RESULTS.rglob(f"{name}.json"))
    assert files
    for file in files:
        jsonschema.validate(json.loads(file.read_text()), schema)


def test_a_chain_in_bfloat16_around_4_bits_finds_the_llc_of_one_in_float32() -> None:
    """All weights of the quantised control models moved, with the same batches and noise: the
    difference is within the error.
    """
    rows = records.read(RESULTS / "control" / "quantisation.json", Quantised)
    for model in {row.model for row in rows}:
        brief, single = (
            next(row for row in rows if (row.model, row.weights) == (model, weights))
            for weights in ("dequantised", "dequantised-float32")
        )
        assert brief.llc is not None
        assert single.llc is not None
        assert single.standard_error is not None
        assert brief.llc != single.llc
        assert abs(brief.llc - single.llc) < single.standard_error


@pytest.mark.parametrize("text", [None, "[", "[{}]", '[{"llc": NaN}]'])
def test_missing_and_damaged_results_are_told(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "estimates.json").write_text(text)
    with pytest.raises(UserError, match="run the stage that writes it again"):
        records.read(tmp_path / "estimates.json", Estimate)


EDITED = [  # fields that no computation gives, and words of the line
    ({"interval": (1.0, 4.0)}, "0: the interval 1 to 4 does not hold 5"),
    ({"interval": (9.0, 1.0)}, "0: the interval 9 to 1 does not hold 5"),
    ({"llc": 900.0}, "does not hold 900"),
    ({"llc": 5.1}, "0: llc is 5.1, and its shuffles give 5"),
    ({"estimator": "published", "shuffles": [-1.0, -2.0]}, "0: llc is 5, and its shuffles give"),
    ({"interval": (4.0, 6.0)}, "0: low is 4, and its shuffles give 3.40877"),
    ({"standard_error": 0.4}, "0: standard_error is 0.4, and its shuffles give 0.5"),
    ({"standard_error": 0.0}, "0: standard_error is 0, and its shuffles give 0.5"),
    ({"standard_error": -0.5}, "0: standard_error is -0.5, and it cannot be below 0"),
    ({"steps": -3}, "steps is -3"),
    ({"drift_p": 1.5}, "drift_p is 1.5, and it cannot be above 1"),
    ({"chains": 2, "diverged_chains": 3}, "diverged_chains is 3, more than chains"),
    ({"sampled_parameters": 1_001}, "sampled_parameters is 1001, more than parameters"),
]


@pytest.mark.fault("A3")
@pytest.mark.parametrize(("edit", "says"), EDITED, ids=[says for _, says in EDITED])
def test_a_number_that_no_computation_gives_is_told(
    tmp_path: Path, edit: dict[str, object], says: str
) -> None:
    row = estimate("small", "controlled", 1_000, 5.0)
    file = tmp_path / "estimates.json"
    records.write(file, [row])
    assert records.read(file, Estimate)[0].llc == 5.0
    records.write(file, [row.model_copy(update=edit)])
    with pytest.raises(UserError, match="run the stage that writes it again") as error:
        records.read(file, Estimate)
    assert says in str(error.value)


TYPED = [  # a field of the first row, what was written there, and words of the line
    ("llc", "5.0", "0.llc: is '5.0' (text) where a number belongs"),
    ("llc", True, "0.llc: is true where a number belongs"),
    ("llc", [5.0], "0.llc: is a list where a number belongs"),
    ("chains", 8.5, "0.chains: is 8.5 where a whole number belongs"),
    ("model", 7, "0.model: is 7 where text belongs"),
    ("shuffles", [1.0, "x"], "0.shuffles.1: is 'x' (text) where a number belongs"),
    ("shuffles", 5, "0.shuffles: is 5 where a list belongs"),
    ("interval", [1.0, 2.0, 3.0], "0.interval: has 3, and may have at most 2"),
    ("note", "", "0.note: is unknown"),
]


@pytest.mark.fault("A3")
@pytest.mark.parametrize(("field", "value", "says"), TYPED, ids=[says for *_, says in TYPED])
def test_a_value_of_another_kind_is_told(
    tmp_path: Path, field: str, value: object, says: str
) -> None:
    file = tmp_path / "estimates.json"
    row = estimate("small", "controlled", 1_000, 5.0).model_dump()
    write_json(file, [row | {field: value}])
    told(lambda: records.read(file, Estimate), f"{file}: {says}; run the stage that writes it")


@pytest.mark.fault("A3")
@pytest.mark.parametrize("chosen", [(True, True), (False, False)])
def test_a_search_that_chose_not_one_trial_is_told(
    tmp_path: Path, chosen: tuple[bool, bool]
) -> None:
    file = tmp_path / "search.json"
    records.write(
        file, [trial("small", lr, each) for lr, each in zip((1.0, 2.0), chosen, strict=True)]
    )
    said = f"{sum(chosen)} trials of f are `chosen`, and one must be"
    told(lambda: records.read(file, Trial), said)


@pytest.mark.fault("A3")
def test_an_error_of_0_and_a_number_that_is_too_large_are_told(tmp_path: Path) -> None:
    file = tmp_path / "baselines.json"
    row = baseline("small", 1_000)
    records.write(file, [row.model_copy(update={"standard_error": 0.0})])
    told(lambda: records.read(file, Baseline), "0: standard_error is 0, and it must be above 0")
    file.write_text(row.model_dump_json().join("[]").replace("0.01", "1e999"))
    told(lambda: records.read(file, Baseline), "1e999 is no number of JSON")


@pytest.mark.fault("A3")
def test_a_row_that_is_there_twice_is_told(tmp_path: Path) -> None:
    rows = [estimate("small", name, 1_000, 5.0) for name in ("plain", "paired", "plain")]
    records.write(tmp_path / "estimates.json", rows)
    with pytest.raises(UserError, match="the row of small, plain is there twice; run the stage"):
        records.read(tmp_path / "estimates.json", Estimate)
    records.write(
        tmp_path / "claims.json", [claim("C1", "supported"), claim("C1", "not supported")]
    )
    with pytest.raises(UserError, match="the row of C1 is there twice"):
        records.read(tmp_path / "claims.json", JudgedClaim)


SETTING: dict[str, Any] = {"temperature": (1.0, 0.01), "degree": (2.0, 0.1), "trace": (97.0, 1.0)}
UNLIKELY = [  # fields of a setting that no computation gives, and words of the line
    ({"standard_error": 0.0}, "standard_error is 0, and it must be above 0"),
    ({"standard_error": None}, "llc and standard_error must be both null or both numbers"),
    ({"interval": (100.0, 200.0)}, "the interval 100 to 200 does not hold"),
    ({"training": 0}, "training is 0, and it must be above 0"),
    ({"lr": -1.0}, "lr is -1, and it cannot be below 0"),
    ({"regime": "flat"}, "regime is 'flat', and it must be one of not in equilibrium, escaped"),
    ({"trace": (97.0, -1.0)}, "the error of trace is -1, and it cannot be below 0"),
]
DISAGREEING = [  # a second row, and words of the line
    ({}, "the row of 34k-1, tokens, corpus, None, None, None, 1910.0, 300.0 is there twice"),
    ({"nbeta": 30.0, "training": 2}, "34k-1 has another family, size or training than a row"),
    ({"model": "other", "nbeta": 30.0}, "a row of other has another name for one training"),
    ({"model": "34k-2", "training": 2, "parameters": 7}, "34k-2 has another number of parameters"),
]


@pytest.mark.parametrize(("edit", "says"), UNLIKELY, ids=[says for _, says in UNLIKELY])
def test_a_setting_that_no_computation_gives_is_told(
    tmp_path: Path, edit: dict[str, Any], says: str
) -> None:
    file = tmp_path / "settings.json"
    row = setting(**SETTING)
    records.write(file, [row])
    assert len(records.read(file, Setting)) == 1
    records.write(file, [row.model_copy(update=edit)])
    told(lambda: records.read(file, Setting), says)


def test_a_setting_knows_every_regime() -> None:
    assert (*regimes.REGIMES, "undecided") == REGIMES


@pytest.mark.parametrize(("second", "says"), DISAGREEING, ids=[says for _, says in DISAGREEING])
def test_settings_that_disagree_are_told(tmp_path: Path, second: dict[str, Any], says: str) -> None:
    file = tmp_path / "settings.json"
    records.write(file, [setting(), setting().model_copy(update=second)])
    told(lambda: records.read(file, Setting), says)
