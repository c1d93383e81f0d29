"""What is published follows its schema, changes only when a result does, and shows what was not run
as *not run*.
"""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from replicate.data.json_io import rounded, write_json
from replicate.errors import UserError
from replicate.pipeline.config import load
from replicate.pipeline.stages import claims, collect
from replicate.pipeline.stages import figures as figures_stage
from replicate.pipeline.stages import tables as tables_stage
from replicate.reporting import tables
from replicate.reporting.figures.search import search
from replicate.study import records as results
from replicate.study.records import Estimate, Quantised, Trial
from tests.conftest import ROOT

PUBLISHED = ROOT / "data" / "published.yaml"


@pytest.fixture(scope="module")
def not_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper study's results where nothing has been run."""
    out = tmp_path_factory.mktemp("results")
    collect.run(load(ROOT / "params.yaml"), "paper", Path("nowhere"), out)
    claims.run(load(ROOT / "params.yaml"), "paper", out, PUBLISHED, out)
    return out


@pytest.mark.parametrize("name", results.schemas())
def test_the_schemas_in_git_are_those_of_the_code(name: str) -> None:
    """Else: python -m replicate schemas results/schemas."""
    assert (
        json.loads((ROOT / "results" / "schemas" / f"{name}.schema.json").read_text())
        == results.schemas()[name]
    )


@pytest.mark.parametrize("name", results.schemas())
def test_the_results_in_git_follow_their_schemas(name: str) -> None:
    schema = json.loads((ROOT / "results" / "schemas" / f"{name}.schema.json").read_text())
    files = sorted((ROOT / "results").rglob(f"{name}.json"))
    assert len(files) >= (2 if name in results.COLLECTED else 1)
    for file in files:
        jsonschema.validate(json.loads(file.read_text()), schema)


def test_a_rise_of_the_loss_is_told_in_millinats_and_not_of_float32() -> None:
    common = {
        "family": "f",
        "model": "m",
        "moved": "full",
        "sampled_parameters": 1234,
        "loss": 1.0,
        "gradient_norm_squared": 0.5,
    }
    common |= {
        "descent": 0.0,
        "descent_error": 0.1,
        "llc": 20.0,
        "standard_error": 0.5,
        "groups": [],
        "changes": [],
        "rhat": None,
    }
    common |= {"rise": 0.0039, "rise_error": 0.0006, "chains": 1, "failed_chains": 0}
    rows = [
        Quantised.model_validate(common | {"weights": name, "status": "run"})
        for name in ("float32", "nf4")
    ]
    rows.append(rows[0].model_copy(update={"status": "not run"}))
    first, second, third = tables.quantisation(rows).splitlines()
    assert first == r"m & full & float32 & 1\,234 & 1 & -- & 0.5 & 20 $\pm$ 0.5 \\"
    assert r"3.90 $\pm$ 0.60" in second
    assert r"\notrun" in third


def test_a_chain_in_bfloat16_around_4_bits_finds_the_llc_of_one_in_float32() -> None:
    """All weights of the demo's quantised models moving, with the same batches and noise: the
    difference is within the error.
    """
    rows = results.read(ROOT / "results" / "demo" / "quantisation.json", Quantised)
    for model in {row.model for row in rows}:
        brief, single = (
            next(r for r in rows if r.model == model and r.weights == f)
            for f in ("dequantised", "dequantised-float32")
        )
        assert brief.llc is not None
        assert single.llc is not None
        assert single.standard_error is not None
        assert brief.llc != single.llc
        assert abs(brief.llc - single.llc) < 0.25 * single.standard_error


def test_what_was_not_run_is_there_as_not_run(not_run: Path) -> None:
    rows = results.read(not_run / "estimates.json", Estimate)
    assert len(rows) == 7 * 5
    assert {row.status for row in rows} == {"not run"}
    assert all(row.llc is row.standard_error is row.interval is None for row in rows)


def test_a_study_that_was_not_run_has_figures_and_tables_that_say_so(
    not_run: Path, tmp_path: Path
) -> None:
    params = load(ROOT / "params.yaml")
    figures_stage.run(params, "paper", not_run, PUBLISHED, tmp_path / "figures")
    tables_stage.run(params, "paper", not_run, PUBLISHED, tmp_path / "tables")
    assert {path.stem for path in (tmp_path / "figures").iterdir()} >= {
        "llc",
        "original",
        "transfer",
        "search-llama2",
    }
    estimates = (tmp_path / "tables" / "estimates.tex").read_text()
    assert estimates.count(r"\notrun") == 7
    assert "641.0" in estimates or "640.99" in estimates
    assert (
        r"\setresult{paper/gpt2-xl/llc}{\notrun}"
        in (tmp_path / "tables" / "values.tex").read_text()
    )


def test_figures_are_the_same_bytes_each_time(not_run: Path, tmp_path: Path) -> None:
    params = load(ROOT / "params.yaml")
    for folder in ("first", "second"):
        figures_stage.run(params, "demo", ROOT / "results" / "demo", PUBLISHED, tmp_path / folder)
    for file in (tmp_path / "first").iterdir():
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes(), file.name


def test_a_chain_that_failed_is_crossed_out_in_the_heat_map() -> None:
    common = {
        "family": "f",
        "model": "m",
        "sampler": "sgld",
        "weight_decay": 0,
        "localization": 1,
        "bounding_box": None,
    }
    common |= {
        "diffusion": None,
        "noise_diffusion": None,
        "mean": 1.0,
        "standard_deviation": 1.0,
        "chains": 2,
        "proposed_by": "grid",
    }
    common |= {"rhat": 1.0, "drift_p": 0.5}
    good = {
        "stability": 3.0,
        "efficiency": 0.1,
        "healthy": True,
        "failed_chains": 0,
        "chosen_by": ["stability"],
        "chosen": True,
    }
    bad = {
        "stability": None,
        "efficiency": None,
        "healthy": False,
        "failed_chains": 1,
        "chosen_by": [],
        "chosen": False,
    }
    trials = [
        Trial.model_validate(common | good | {"lr": 1e-5}),
        Trial.model_validate(common | bad | {"lr": 1e-3}),
    ]
    axes = search(trials, [], "f").axes[0]
    assert [text.get_text() for text in axes.texts] == ["3.0", "×"]
    assert len(axes.patches) == 1


def test_numbers_are_rounded_sorted_and_never_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1 / 3, "a": [float("nan"), float("inf"), 2]})
    assert (
        tmp_path / "a.json"
    ).read_text() == '{\n "a": [\n  null,\n  null,\n  2\n ],\n "b": 0.333333\n}\n'
    assert rounded(123456789.0) == 123457000.0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "--"),
        (0.0, "0"),
        (38.8123, "38.81"),
        (-4.2, "$-$4.2"),
        (641234.0, "641200"),
        (1e-7, r"$1\times10^{-7}$"),
        (-2.5e9, r"$-2.5\times10^{9}$"),
    ],
)
def test_numbers_in_latex(value: float | None, text: str) -> None:
    assert tables.number(value) == text


def test_missing_results_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the stage that writes it again"):
        results.read(tmp_path / "estimates.json", Estimate)
