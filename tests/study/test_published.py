"""Nothing was copied wrongly, and the published figures say what they are said to say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from replicate.errors import UserError
from replicate.estimation import statistics
from replicate.pipeline.config import load
from replicate.pipeline.stages import published as stage
from replicate.study import published
from tests.conftest import ROOT

FILE = ROOT / "data" / "published.yaml"
FIGURES = published.read(FILE)
ROWS = {row.model: row for row in published.aggregates(FIGURES)}


@pytest.mark.parametrize("model", ROWS)
def test_reported_averages_are_those_of_the_positive_shuffles(model: str) -> None:
    """The terms are given to 0.01, and so is their average: it may be off by half of that."""
    (given,) = (models[model] for models in FIGURES.models.values() if model in models)
    positive = [round(100 * value) for value in given.mean if value > 0]
    assert abs(sum(positive) / len(positive) - round(100 * given.reported)) <= 0.5 + 1e-9
    assert ROWS[model].agrees


@pytest.mark.parametrize("wrong", [640.97, 641.0])
def test_a_wrong_last_digit_is_seen(wrong: float) -> None:
    gpt2 = FIGURES.families["gpt2"]
    model = gpt2.models["gpt2"].model_copy(update={"reported": wrong})
    families = {"gpt2": gpt2.model_copy(update={"models": {"gpt2": model}})}
    assert not published.aggregates(FIGURES.model_copy(update={"families": families}))[0].agrees


def test_reported_deviations_average_all_shuffles_and_not_only_the_averaged_ones() -> None:
    """Llama-2-13B's ± 2.84 holds the deviation of the shuffle whose mean was dropped."""
    for model, reported in (("llama-2-7b", 51.64), ("llama-2-13b", 2.84)):
        assert round(ROWS[model].deviation_of_all, 2) == ROWS[model].reported_deviation == reported
    assert (ROWS["llama-2-13b"].kept, ROWS["llama-2-13b"].shuffles) == (2, 3)
    assert ROWS["llama-2-13b"].deviation_of_kept == pytest.approx((0.82 + 3.79) / 2)


def test_analysis_of_variance_is_as_stated() -> None:
    gpt2, llama2 = published.analyses(FIGURES)
    for row, shares in ((gpt2, [90.2, 4.8, 5.0]), (llama2, [82.3, 6.7, 11.0])):
        found = [round(100 * share, 1) for share in (row.shuffle, row.model, row.residual)]
        assert found == shares
    assert (round(gpt2.f, 2), round(gpt2.p_value, 3)) == (2.88, 0.096)
    assert round(llama2.p_value, 2) == 0.38
    assert gpt2.page_p == pytest.approx(0.00746287)
    assert llama2.page_p is None


def test_models_agree_over_shuffles_because_they_share_the_baseline() -> None:
    pairs = np.array(published.analyses(FIGURES)[0].correlations)[np.triu_indices(4, 1)]
    assert (round(pairs.min(), 2), round(pairs.max(), 2)) == (0.94, 0.99)


def test_analysis_of_two_models_is_the_paired_t_test() -> None:
    values = FIGURES.families["llama2"].llc_SxM
    expected = stats.ttest_rel(values[:, 0], values[:, 1]).pvalue
    assert statistics.anova(values).p == pytest.approx(expected)


def test_counts_and_temperatures_follow_from_one_another() -> None:
    counts, gpt2, llama2 = FIGURES.counts, FIGURES.families["gpt2"], FIGURES.families["llama2"]
    assert round(counts.kept / np.log(counts.kept), 1) == counts.factor == llama2.nbeta
    assert gpt2.batches == counts.kept / 5
    assert round(gpt2.batches / np.log(gpt2.batches)) == gpt2.nbeta
    assert counts.search_batches == counts.search_kept / 5
    assert round(counts.search_batches / np.log(counts.search_batches), 1) == counts.search_nbeta


def test_the_stage_writes_what_is_in_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(ROOT / "params.yaml")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "published.yaml").write_bytes(FILE.read_bytes())
    monkeypatch.chdir(tmp_path)
    stage.run(config)
    for file in ("aggregates.json", "anova.json", "claims.json"):
        written, in_git = (root / "results" / "published" / file for root in (tmp_path, ROOT))
        assert written.read_bytes() == in_git.read_bytes()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("reported: 640.99", "reported: many", "families.gpt2.models.gpt2.reported"),
        ("reported: 640.99", "reporte: 640.99", "families.gpt2.models.gpt2.reported"),
        ("families:", "families: [", "cannot be read"),
    ],
)
def test_a_damaged_or_missing_file_is_told(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    file = tmp_path / "published.yaml"
    with pytest.raises(UserError, match=r"cannot be read .*; take the file from git again"):
        published.read(file)
    file.write_text(FILE.read_text(encoding="utf-8").replace(before, after, 1), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        published.read(file)
