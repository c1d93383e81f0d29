"""The stage `coverage` publishes what short runs of two kinds of model hold."""

from __future__ import annotations

from pathlib import Path

from replicate.study import records
from tests.pipeline.small import configured, run, told

FEW = {"regression": 2, "models": {"localised": 2}, "reference": {"runs": 2, "draws": 3}}


def test_coverage_has_a_row_of_each_kind_and_goes_on_from_its_units(empty: Path) -> None:
    config = configured(coverage={"demo": FEW})
    run(config, "coverage", name="demo")
    file, cache = Path("results/demo/coverage.json"), Path("cache/coverage")
    first, units = file.read_bytes(), sorted(cache.iterdir())
    assert len(units) == 2 + 2 + 1  # regressions, long runs, and the short runs together
    known, model = records.read(file, records.Coverage)
    assert (known.kind, known.standard_error) == ("closed form", None)
    assert (model.kind, model.target, model.repeats) == ("language model", "mini-34k", 2)
    assert model.standard_error is not None
    assert 0 < model.standard_error < model.true_llc < 1
    units[0].unlink()
    run(config, "coverage", name="demo")
    assert file.read_bytes() == first


def test_a_study_without_coverage_is_told(empty: Path) -> None:
    told(lambda: run(configured(), "coverage", name="demo"), "coverage", "'demo'")
