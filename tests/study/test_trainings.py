"""Claims on trainings have the verdicts of their rules, and wrong ones as rarely as promised."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from replicate.study import evidence as gathered
from replicate.study import published
from replicate.study.claims.evidence import Evidence
from tests.conftest import ROOT
from tests.study import known_trainings as known
from tests.study import known_truth
from tests.study.known_trainings import COARSE, SIGMA, Draw, judged, row, tally
from tests.study.known_truth import RULES, WRONG

LIMITS = RULES.trainings
EDGE = float(stats.norm.ppf(LIMITS.apart)) * 2**0.5 * SIGMA  # the gap at which p is `apart`

WRONGLY = [  # truth at the edge of a claim, and the verdicts that are wrong there
    ("C1", known.sizes(known.power(0.0)), ("supported", "not supported")),
    ("C1", known.sizes(known.power(0.0), (2, 2, 2, 2)), ("supported", "not supported")),
    ("C2", known.sizes(known.power(0.5)), ("supported", "not supported")),
    ("C9", known.llama(known.power(0.5), known.power(0.0)), ("supported", "not supported")),
    ("C11", known.llama(known.power(0.5), known.power(0.5)), ("not supported",)),
    ("R1", known.curved(1.0, 1 + LIMITS.curvature, error=0.03), ("supported", "not supported")),
    ("R1", known.curved(1.0, 1.0, degree=2 + LIMITS.quadratic, error=0.08), ("supported",)),
    ("R2", known.rescaled(LIMITS.invariant, 0.03), ("supported", "not supported")),
    ("R2", known.rescaled(-LIMITS.invariant, 0.1, 4), ("supported", "not supported")),
    ("R3", known.orders(0.5, 0.5, 0.0, 0.5, counts=(5, 5)), ("supported", "not supported")),
    ("R3", known.orders(0.5, 0.5, 0.0, 0.5), ("supported", "not supported")),
    ("R4", known.beyond(0.0), ("supported", "not supported")),
    ("R5", known.apart(EDGE), ("supported", "not supported")),
    ("R5", known.apart(EDGE, count=3), ("supported", "not supported")),
    ("R5", known.apart(EDGE, pairs=3), ("supported",)),
]


@pytest.mark.parametrize(("claim", "draw", "wrong"), WRONGLY)
def test_wrong_verdicts_keep_to_the_level(claim: str, draw: Draw, wrong: tuple[str, ...]) -> None:
    found = tally(claim, draw)
    assert all(found[verdict] <= WRONG for verdict in wrong), found


@pytest.mark.parametrize(
    ("claim", "draw", "expected"),
    [
        ("C1", known.sizes(known.power(0.4)), "supported"),
        ("C1", known.sizes(known.power(-0.4)), "not supported"),
        ("C1", known.sizes(known.power(0.0), (2, 2)), "inconclusive"),
        ("C2", known.sizes(known.bent(-0.2)), "supported"),
        ("C2", known.sizes(known.bent(0.2)), "not supported"),
        ("C2", known.sizes(known.power(0.4), (5, 5)), "inconclusive"),
        ("C9", known.llama(known.power(0.5), known.power(0.5)), "supported"),
        ("C9", known.llama(known.power(0.5), known.power(-0.5)), "not supported"),
        ("C11", known.llama(known.power(0.5), known.power(0.5), sigma=0.01), "supported"),
        ("C11", known.llama(known.power(0.5), known.power(0.5, 4.0)), "not supported"),
        ("C11", known.llama(known.power(0.5), known.power(0.5), sigma=0.4), "inconclusive"),
        ("R1", known.curved(1.0, 1.02, 0.98, 1.0), "supported"),
        ("R1", known.curved(1.0, 1.0, 1.0, 1.2), "not supported"),
        ("R1", known.curved(1.0, 1.0, degree=2.4), "not supported"),
        ("R1", known.curved(1.0, 1.0, 1.0, 1.1), "inconclusive"),
        ("R2", known.rescaled(0.0, 0.02), "supported"),
        ("R2", known.rescaled(0.5, 0.05), "not supported"),
        ("R2", known.rescaled(0.5, 0.05, 3), "inconclusive"),
        ("R3", known.orders(0.5, 0.4, 0.6, 0.3), "supported"),
        ("R3", known.orders(0.5, 0.4, 0.6, -0.8), "not supported"),
        ("R3", known.orders(0.5, -0.4, 0.6), "not supported"),
        ("R3", known.orders(0.5, 0.4, 0.6), "inconclusive"),  # no fixed radius
        ("R3", known.orders(0.5, 0.4), "inconclusive"),
        ("R3", known.orders(0.5, 0.0, 0.6, 0.5), "inconclusive"),
        ("R4", known.beyond(0.2), "supported"),
        ("R4", known.beyond(-0.2), "not supported"),
        ("R4", known.beyond(0.0), "inconclusive"),
        ("R5", known.apart(0.8, pairs=3), "supported"),
        ("R5", known.apart(0.02, pairs=3), "not supported"),
        ("R5", known.apart(EDGE), "inconclusive"),
    ],
)
def test_every_verdict_is_reached_where_it_is_right(claim: str, draw: Draw, expected: str) -> None:
    found = tally(claim, draw, 20)
    assert found[expected] >= 15, found


def test_the_error_over_trainings_is_the_pooled_one() -> None:
    """Of two sizes, the exponent is Student's difference over the difference of ln d."""
    rows = known.trainings(np.random.default_rng(0), {COARSE: known.power(0.4)}, (5, 4))
    logs = [
        [np.log(each.llc or 0) for each in rows if each.size == size] for size in ("34k", "110k")
    ]
    interval = stats.ttest_ind(logs[1], logs[0]).confidence_interval(0.95)
    apart = np.log(known.SIZES["110k"] / known.SIZES["34k"])
    found = judged("C1", known.evidence(rows))
    assert found.interval == pytest.approx((interval.low / apart, interval.high / apart))


def test_r5_is_the_probability_of_the_right_order() -> None:
    """Its effect agrees with trainings drawn in pairs."""
    draw = known.apart(0.1, count=400)
    found = judged("R5", draw(np.random.default_rng(0)))
    pairs = np.random.default_rng(1).normal(size=(100_000, 2)) * SIGMA
    assert found.effect == pytest.approx(np.mean(pairs[:, 0] < pairs[:, 1] + 0.1), abs=0.02)


def test_r4_takes_the_gradient_off() -> None:
    """Without it, a part of λ̂ that is a share of it at the coarse setting alone would be growth."""
    laws = {COARSE: known.power(0.3), known.FINER: known.power(0.3)}
    rows = known.trainings(np.random.default_rng(0), laws, sigma=0.0)
    shifted = [
        each.model_copy(update={"llc": (each.llc or 0) - 5, "gradient_part": (-5.0, 0.1)})
        if each.nbeta == COARSE[0]
        else each
        for each in rows
    ]
    one, other = (judged("R4", known.evidence(each)) for each in (rows, shifted))
    assert one.effect == pytest.approx(other.effect, abs=1e-9)
    unknown = [each.model_copy(update={"gradient_part": None}) for each in rows]
    found = judged("R4", known.evidence(unknown))
    assert found.verdict == "inconclusive"
    assert "36 λ̂, which are not judged" in found.why


def test_the_first_number_names_its_setting_its_range_and_the_fixed_radius() -> None:
    found = judged("R3", known.orders(0.5, 0.3, 0.6, -0.7, sigma=0.001)(np.random.default_rng(0)))
    assert found.effect == pytest.approx(0.5, abs=0.02)
    assert found.measure == "exponent a of λ̂ ∝ dᵃ at (1910, 300)"
    assert "at (1910, 300), where λ̂ is an effective dimension at α = 0.157" in found.why.lower()
    told = re.search(
        r"over 3 settings a is (\S+) to (\S+), and at a fixed radius .* (\S+) \(95", found.why
    )
    assert told
    numbers = [float(each.replace("−", "-")) for each in told.groups()]
    assert numbers == pytest.approx([0.3, 0.6, -0.7], abs=0.02)
    paired = [each for each in found.parts if "paired" in each.name]
    assert [round(each.effect or 0, 1) for each in paired] == [-0.2, 0.1, -1.2]


def test_chains_that_left_are_counted_and_not_judged() -> None:
    rows = known.trainings(np.random.default_rng(0), {COARSE: known.power(0.4)})
    spoilt: dict[str, Any] = {
        "regime": "escaped",
        "llc": 1e6,
        "standard_error": 1e4,
        "interval": None,
    }
    noisy = {"standard_error": 2 * LIMITS.monte_carlo * (rows[5].llc or 0)}
    bad = [row("34k", 6, **spoilt), row("34k", 7, **{**spoilt, "regime": "not in equilibrium"})]
    found = judged("C1", known.evidence([*rows, *bad]))
    clean = judged("C1", known.evidence(rows))
    assert (found.effect, found.interval) == (clean.effect, clean.interval)
    assert "Not judged at (1910, 300): 2 of 20 (1 escaped, 1 not in equilibrium)." in found.why
    changed = [*rows[:5], rows[5].model_copy(update=noisy), *rows[6:]]
    assert "1 with a Monte-Carlo error above 3%" in judged("C1", known.evidence(changed)).why
    gone = [each.model_copy(update=spoilt) if each.size == "34k" else each for each in rows]
    found = judged("C1", known.evidence(gone))
    assert found.verdict == "inconclusive"
    assert "no λ̂ of 34k is judged" in found.why


def test_other_text_checkpoints_and_rescaled_weights_are_no_trainings() -> None:
    rows = known.trainings(np.random.default_rng(0), {COARSE: known.power(0.4)})
    beside = [
        row("34k", 1, 9.0, **each)
        for each in ({"text": "sampled"}, {"step": 10}, {"rescaled": "gain"})
    ]
    one_of_each = known.trainings(
        np.random.default_rng(1), {(30.0, 5000.0): known.power(0.4)}, (1, 1, 1, 1)
    )
    for claim in ("C1", "C2", "R3", "R5"):
        assert judged(claim, known.evidence([*rows, *beside, *one_of_each])) == judged(
            claim, known.evidence(rows)
        )


def test_one_training_of_each_size_is_about_these_checkpoints() -> None:
    rows = known.orders(0.5, 0.4, 0.6, -0.8, counts=(1, 1, 1, 1))(np.random.default_rng(0)).settings
    shuffles = known_truth.family(np.outer([1.0, 1.01, 0.99], [1.0, 2.0, 4.0, 8.0]))
    study = replace(known.evidence(rows), full=shuffles)
    for claim in ("C1", "C2", "R3", "R1"):
        assert judged(claim, study).why.startswith("For these checkpoints")
    assert judged("C1", study).effect == judged("C1", replace(study, settings=())).effect
    assert judged("R3", study).verdict == "not supported"
    assert judged("R5", study).verdict == "not decided here"


def test_trainings_are_no_further_sizes() -> None:
    """A study that has several trainings, and no settings yet, has no verdict on sizes."""
    family = known_truth.family(np.ones((3, 2)), parameters_M=np.array([5.0, 5.0]))
    for claim in ("C1", "C2", "C9"):
        assert judged(claim, Evidence(full=family, quantised=family)).verdict == "not run"


def test_sizes_of_equally_many_parameters_have_no_order() -> None:
    """So it is with several checkpoints of other data, or of one architecture."""
    rows = known.orders(0.5, 0.4, 0.6, -0.8)(np.random.default_rng(0)).settings
    alike = known.evidence([each.model_copy(update={"parameters": 34_080}) for each in rows])
    for claim in ("C1", "C2", "R3", "R5"):
        assert judged(claim, alike).verdict in ("not run", "inconclusive"), claim


def test_the_published_figures_do_not_decide_what_λ_is() -> None:
    file = ROOT / "data" / "published.yaml"
    study = gathered.of_figures(published.read(file), file)
    for claim in ("R1", "R2", "R3", "R4", "R5"):
        found = judged(claim, study)
        assert found.verdict == "not decided here"
        assert found.effect is None
    assert judged("C1", study).why.startswith("For these checkpoints at (nβ, γ) = (457, 1)")


def test_a_rescaled_model_is_paired_with_itself() -> None:
    draw = known.rescaled(0.0, 0.02, regime="escaped")
    found = judged("R2", draw(np.random.default_rng(0)))
    assert found.verdict == "inconclusive"
    assert "Pairs not judged: 6 (6 escaped)" in found.why
    alone = known.evidence([row(rescaled="gain")])
    assert "1 without the model itself" in judged("R2", alone).why


def test_the_shares_of_trainings_are_reported_beside_c7() -> None:
    study = known.orders(0.5, 0.4, 0.6)(np.random.default_rng(0))
    shuffles = known_truth.family(np.ones((4, 1)), estimator=published.ORIGINAL)
    found = judged("C7", replace(study, full=shuffles))
    shares = [each.effect for each in found.parts if "trainings' share" in each.name]
    expected = SIGMA**2 / (SIGMA**2 + known.ERROR**2)
    assert shares == pytest.approx([expected] * 3, abs=0.05)


def test_what_chains_of_a_quantised_family_leave_unmoved_is_said() -> None:
    found = known.llama(known.power(0.5), known.power(0.5))(np.random.default_rng(0))
    assert "Chains move" not in judged("C11", found).why
    values, moved = np.ones((3, 2)), known_truth.SIZES[:2] * np.array([0.65, 0.48])
    quantised = known_truth.family(values, name="sizes-llama", sampled_M=moved)
    said = judged("C11", replace(found, quantised=quantised)).why
    assert "Chains move 48 to 65 % of the parameters of sizes-llama." in said
