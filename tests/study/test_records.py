"""What is published follows its schema and changes only when a result does."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from replicate.errors import UserError
from replicate.study import records
from replicate.study.records import Estimate, JudgedClaim, Quantised
from tests.conftest import ROOT
from tests.study.small_results import claim, estimate

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
        assert abs(brief.llc - single.llc) < 0.25 * single.standard_error


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
    ({"standard_error": -0.5}, "0: standard_error is -0.5, and it cannot be below 0"),
    ({"steps": -3}, "steps is -3"),
    ({"drift_p": 1.5}, "drift_p is 1.5, and it cannot be above 1"),
    ({"chains": 2, "diverged_chains": 3}, "diverged_chains is 3, more than chains"),
    ({"sampled_parameters": 1_001}, "sampled_parameters is 1001, more than parameters"),
]


@pytest.mark.fault("A3")
@pytest.mark.parametrize(("edit", "says"), EDITED, ids=[" ".join(edit) for edit, _ in EDITED])
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
