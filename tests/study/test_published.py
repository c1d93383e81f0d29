"""Nothing was copied wrongly, and the published figures say what they are said to say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from replicate.errors import UserError
from replicate.estimation import statistics as inference
from replicate.pipeline.config import load
from replicate.pipeline.stages import published as stage
from replicate.study import published
from tests.conftest import ROOT

FILE = ROOT / "data" / "published.yaml"
FIGURES = published.read(FILE)


@pytest.mark.parametrize(
    ("family", "model"), [(f, m) for f, models in FIGURES.models.items() for m in models]
)
def test_reported_averages_are_those_of_the_positive_shuffles(family: str, model: str) -> None:
    """To the last digit: the average of figures to 0.01, each off by half of that at most, rounded
    to 0.01.
    """
    given = FIGURES.models[family][model]
    positive = [round(100 * value) for value in given.mean if value > 0]
    assert abs(sum(positive) / len(positive) - round(100 * given.reported)) <= 0.5 + 1e-9
    assert next(row for row in published.aggregates(FIGURES) if row.model == model).agrees


def test_a_wrong_last_digit_is_seen() -> None:
    gpt2 = FIGURES.families["gpt2"]
    for wrong in (640.97, 641.0):
        model = gpt2.models["gpt2"].model_copy(update={"reported": wrong})
        families = {"gpt2": gpt2.model_copy(update={"models": {"gpt2": model}})}
        assert not published.aggregates(FIGURES.model_copy(update={"families": families}))[0].agrees


def test_reported_deviations_average_all_shuffles_and_not_the_kept_ones() -> None:
    """Llama-2-13B's ± 2.84 holds the deviation of the shuffle whose mean was dropped."""
    rows = {row.model: row for row in published.aggregates(FIGURES)}
    assert (
        round(rows["llama-2-7b"].deviation_of_all, 2)
        == rows["llama-2-7b"].reported_deviation
        == 51.64
    )
    assert (
        round(rows["llama-2-13b"].deviation_of_all, 2)
        == rows["llama-2-13b"].reported_deviation
        == 2.84
    )
    assert rows["llama-2-13b"].kept == 2
    assert rows["llama-2-13b"].deviation_of_kept == pytest.approx((0.82 + 3.79) / 2)


def test_half_of_the_gpt2_evidence_was_dropped() -> None:
    assert [row.kept for row in published.aggregates(FIGURES) if row.family == "gpt2"] == [
        2,
        2,
        2,
        2,
    ]


def test_analysis_of_variance_is_as_stated() -> None:
    gpt2, llama2 = (inference.anova(family.llc_GxM) for family in FIGURES.families.values())
    assert [round(100 * share, 1) for share in (gpt2.rows, gpt2.columns, gpt2.residual)] == [
        90.2,
        4.8,
        5.0,
    ]
    assert (round(gpt2.f, 2), round(gpt2.p, 3)) == (2.88, 0.096)
    assert [round(100 * share, 1) for share in (llama2.rows, llama2.columns, llama2.residual)] == [
        82.3,
        6.7,
        11.0,
    ]
    assert round(llama2.p, 2) == 0.38


def test_models_agree_over_shuffles_because_they_share_the_baseline() -> None:
    pairs = inference.correlations(FIGURES.families["gpt2"].llc_GxM)[np.triu_indices(4, 1)]
    assert (round(pairs.min(), 2), round(pairs.max(), 2)) == (0.94, 0.99)


def test_pages_test_is_as_stated() -> None:
    assert round(inference.page(FIGURES.families["gpt2"].llc_GxM), 4) == 0.0075


@pytest.mark.parametrize("shape", [(4, 4), (3, 2), (7, 5)])
def test_analysis_of_variance_is_that_of_nested_linear_models(shape: tuple[int, int]) -> None:
    """An independent way: residual sums of squares of least-squares fits with dummy variables."""
    values = np.random.default_rng(sum(shape)).normal(size=shape) + np.arange(shape[1])
    row, column = (index.ravel() for index in np.indices(shape))

    def residual(*columns: np.ndarray) -> float:
        design = np.column_stack([np.ones(values.size), *columns])
        fitted = design @ np.linalg.lstsq(design, values.ravel(), rcond=None)[0]
        return float(((values.ravel() - fitted) ** 2).sum())

    rows, columns = np.eye(shape[0])[row][:, 1:], np.eye(shape[1])[column][:, 1:]
    total, of_rows, of_both = residual(), residual(rows), residual(rows, columns)
    freedom = (shape[0] - 1) * (shape[1] - 1)
    f = (of_rows - of_both) / (shape[1] - 1) / (of_both / freedom)
    found = inference.anova(values)
    assert [found.rows, found.columns, found.residual] == pytest.approx(
        [1 - of_rows / total, (of_rows - of_both) / total, of_both / total]
    )
    assert [found.f, found.p] == pytest.approx([f, stats.f.sf(f, shape[1] - 1, freedom)])


def test_analysis_of_two_models_is_the_paired_t_test() -> None:
    values = FIGURES.families["llama2"].llc_GxM
    assert inference.anova(values).p == pytest.approx(
        stats.ttest_rel(values[:, 0], values[:, 1]).pvalue
    )


def test_counts_and_temperatures_follow_from_one_another() -> None:
    counts, gpt2, llama2 = FIGURES.counts, FIGURES.families["gpt2"], FIGURES.families["llama2"]
    assert round(counts.kept / np.log(counts.kept), 1) == counts.factor == llama2.nbeta
    assert gpt2.batches == counts.kept / 5
    assert round(gpt2.batches / np.log(gpt2.batches)) == gpt2.nbeta
    assert counts.search_batches == counts.search_kept / 5
    assert round(counts.search_batches / np.log(counts.search_batches), 1) == counts.search_nbeta


def test_search_figures_are_as_stated() -> None:
    search = FIGURES.search
    assert search.lr == (1e-7, 1e-5, 1e-3, 1e-1)
    assert search.sgld.stability == (49.0, 0.15, -0.78, 2.1)
    assert search.sgnht.stability == (31.0, 0.70, -5.5, -1.5)
    assert (search.sgld.trials, search.sgld.not_finite[2:]) == (27, (9, 9))
    assert (search.sgnht.trials, search.sgnht.not_finite[2:]) == (9, (3, 7))
    assert search.diffusion.llc == (6487.0, 5410.0, 2571.0)
    assert (search.sgld_range.least, search.sgld_range.greatest) == (2717.0, 4127.0)


def test_every_section_names_its_source() -> None:
    sources = [family.source for family in FIGURES.families.values()] + [
        FIGURES.counts.source,
        FIGURES.search.source,
    ]
    assert all("write-up of November 2023" in source for source in sources)


def test_the_stage_writes_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("first", "second"):
        stage.run(load(ROOT / "params.yaml"), FILE, tmp_path / name)
    for file in ("aggregates.json", "anova.json", "claims.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    assert [
        row["page_p"] for row in json.loads((tmp_path / "first" / "anova.json").read_text())
    ] == [0.00746287, None]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("reported: 640.99", "reported: many", "families.gpt2.models.gpt2.reported"),
        (
            "deviation: [8.81, 140.79, 5.32]",
            "deviation: [8.81, 140.79]",
            "a deviation for every shuffle",
        ),
        ("families:", "families: [", "cannot be read"),
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, before: str, after: str, message: str) -> None:
    (tmp_path / "published.yaml").write_text(
        FILE.read_text(encoding="utf-8").replace(before, after, 1), encoding="utf-8"
    )
    with pytest.raises(UserError, match=message):
        published.read(tmp_path / "published.yaml")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="take the file from git again"):
        published.read(tmp_path / "published.yaml")
