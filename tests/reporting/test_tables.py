"""A table is declared once, and shown as LaTeX, as HTML and on the terminal."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from replicate.estimation.estimators import NAMES
from replicate.reporting import latex, terminal, values
from replicate.reporting.formatting import NOT_RUN, interval, number, whole, with_error
from replicate.reporting.results import Study
from replicate.reporting.table import Column, Table
from replicate.reporting.tables import experiments, models
from replicate.study.plan import StudyPlan
from replicate.study.records import JudgedClaim
from replicate.study.records.verdicts import Part
from tests.reporting.records import made, of_study

TABLE = Table(
    "title",
    [Column("model"), Column("λ̂", format=with_error), Column("note"), Column("p", format=number)],
    [["a", (26.824, 0.4321), None, 1e-7], ["b long name", NOT_RUN]],
)


@pytest.fixture
def plan(config) -> StudyPlan:
    return config.plan("control")


def study(plan: StudyPlan, **records: Any) -> Study:
    found: dict[str, Any] = of_study(plan) | records
    return Study(plan=plan, claims=[], **found)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.0, "0"),
        (-4.2, "−4.2"),
        (641234.0, "641,200"),
        (1e-7, "1 × 10⁻⁷"),
        (-2.5e9, "−2.5 × 10⁹"),
    ],
)
def test_numbers_are_rounded_to_four_digits(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("plain", "written"),
    [
        ("λ̂ ≤ 0 at w*: 5 % & #_ of nβ", r"$\llc$ $\le$ 0 at $w^*$: 5\,\% \& \#\_ of n$\beta$"),
        (number(-1234567), r"$-$1.235$\times10^{6}$"),
        (interval((-5582, 9438)), r"$-$5\,582 to 9\,438"),
        (NOT_RUN, r"\notrun"),
    ],
)
def test_text_is_safe_for_latex(plain: str, written: str) -> None:
    assert latex.text(plain) == written


def test_what_was_not_run_spans_the_columns_that_a_row_lacks() -> None:
    assert latex.rows(TABLE).splitlines() == [
        r"a & 26.82 $\pm$ 0.43 & -- & 1$\times10^{-7}$ \\",
        r"b long name & \multicolumn{3}{c}{\notrun} \\",
    ]
    few = TABLE.only("model", "p")
    assert few.texts == [["a", "1 × 10⁻⁷"], ["b long name", NOT_RUN]]


def test_without_a_terminal_every_row_is_a_line_with_all_columns(capsys) -> None:
    terminal.show(TABLE)
    lines = capsys.readouterr().out.splitlines()
    assert [re.split(r" {2,}", line.strip()) for line in lines] == [
        ["title"],
        ["model", "λ̂", "note", "p"],
        ["a", "26.82 ± 0.43", "–", "1 × 10⁻⁷"],
        ["b long name", NOT_RUN, "–", "–"],
    ]


def test_a_model_without_an_estimate_is_in_the_table_as_not_run(plan) -> None:
    last = plan.full.models[-1]
    found = study(plan)
    found.estimates[:] = [row for row in found.estimates if row.model != last]
    assert found.missing == [last]
    table = models.estimators(found)
    assert [column.name for column in table.columns] == ["model", *NAMES]
    assert {row[0]: row[1] == NOT_RUN for row in table.texts} == {
        model: model == last for model in plan.models
    }
    assert values.models(found)[f"{last}/llc"] == NOT_RUN


def test_every_step_size_and_format_that_the_plan_asks_for_has_a_row(plan) -> None:
    found = study(plan, transfer=[], quantisation=[])
    factors = [
        [m, f"× {number(f, 2)}", NOT_RUN] for each in plan.families for m, f in each.transfer
    ]
    assert experiments.transfer(found).texts == factors
    assert experiments.quantisation(found).texts == [[*row, NOT_RUN] for row in plan.formats]


def test_a_range_is_that_of_the_models_of_its_family(plan) -> None:
    spreads = ([7090.0, 1023.1], [5590.0, 806.4])
    rows = [made("original", family=plan.full.name, model="m", spread=spread) for spread in spreads]
    found = values.original(study(plan, original=rows), plan.full.name)
    assert found[f"{plan.full.name}/original/spread32"] == "806 to 1,020"
    nothing = values.original(study(plan, original=[]), plan.full.name)
    assert set(nothing.values()) == {NOT_RUN}


def test_the_range_of_the_exponent_is_over_the_settings_of_one_gamma() -> None:
    """A fixed radius, another loss and differences of exponents are not in it."""
    effects = {
        "(1910, 300)": -0.1288,
        "(30, 300)": -0.2598,
        "(19100, 3000)": -0.2382,
        "(1910, γ = 0.0277·d)": -1.1685,
        "(1910, 300), the last token": 0.5,
    }
    law = "exponent a of λ̂ ∝ dᵃ"
    parts = [_part(f"{name}: {law}", effect) for name, effect in effects.items()]
    parts += [_part("(30, 300) minus (1910, 300): exponent a, paired", -0.9)]
    claim = JudgedClaim(
        id="R3",
        claim="order",
        verdict="not supported",
        measure=law,
        effect=-0.1288,
        interval=None,
        p_value=None,
        why="It changes.",
        parts=parts,
        evidence=[],
    )
    found = values.exponents([claim])
    assert found["exponent/range"] == "−0.26 to −0.129"
    assert found["exponent/1910/radius"] == "−1.17 (−1.27 to −1.07)"
    assert set(values.exponents([]).values()) == {NOT_RUN}


def _part(name: str, effect: float) -> Part:
    bounds = (effect - 0.1, effect + 0.1)
    return Part(name=name, verdict=None, effect=effect, interval=bounds, p_value=None)


def test_gradients_are_counted_from_the_chains_that_ran(plan) -> None:
    table = models.cost(study(plan, search=[]))
    chains = 8 * len(plan.full.models)
    assert ["estimate", plan.full.name, whole(chains), whole(180 * chains)] in table.texts
    assert ["search", plan.full.name, NOT_RUN] in table.texts


def test_the_loss_of_the_chains_is_that_at_the_minimum_plus_llc_over_nbeta(plan) -> None:
    loss, share = models.locality(study(plan))[plan.full.models[0]]
    assert loss == pytest.approx(1.16 + 5 / 30)
    assert share == pytest.approx(5 / 30 / (6.6438 - 1.16), rel=1e-4)


def test_the_floor_at_the_minimum_is_that_of_the_family_s_loss(plan) -> None:
    whole = replace(plan, full=replace(plan.full, loss="tokens"))
    (row, *_), note = (models.training(study(plan)).texts), models.minimum(study(whole)).note
    floors = [models.minimum(study(each)).texts[0][2] for each in (whole, plan)]
    assert floors == [row[3], row[5]]
    assert f"of {plan.full.name}, all tokens but the first are labels" in note
    assert "all tokens but" not in models.minimum(study(plan)).note


def test_costs_that_were_not_measured_are_not_run() -> None:
    works = {"gpt2": {"status": "not run"}}
    found = values.costs({"one": {"machine": {"gpu": None}, "works": works}})
    assert (found["control"], found["gpu"], found["gpt2/limit"]) == (NOT_RUN,) * 3
    peers = {
        "ours": {"status": "run", "fraction_of_limit": 0.5, "ratio": {"median": 1.0}},
        "devinterp": {"status": "run", "ratio": {"median": 3.14159}},
    }
    gpu = {
        "machine": {"gpu": "a GPU"},
        "works": {"gpt2": {"status": "run", "measured": peers}},
        "plan": {"gpt2": {"seconds": 0.25, "memory": 3e9}},
        "control": {"stages": [["search", "mini", 60], ["search", "mini-llama", 30]]},
    }
    found = values.costs({"one": {"machine": {"gpu": None}, "works": works}, "a GPU": gpu})
    assert (found["gpt2/limit"], found["gpt2/devinterp"]) == ("50 %", "3.1")
    assert (found["gpu/gpt2/seconds"], found["gpu/gpt2/memory"]) == ("0.25", "3")
    assert (found["control/search"], found["control/machine"]) == ("1.5", "a GPU")
