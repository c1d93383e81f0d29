"""What is published follows its schema and changes only when a result does."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from replicate.errors import UserError
from replicate.study import records
from replicate.study.records import Estimate, Quantised
from tests.conftest import ROOT

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
