"""Claims say what they are based on and what was left out, and are judged from records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from replicate.study import evidence, published, records
from replicate.study.claims import judge
from replicate.study.claims.evidence import Evidence
from replicate.study.claims.search import diffusion_blocks
from replicate.study.plan import FamilyPlan, StudyPlan
from replicate.study.published import ORIGINAL
from replicate.study.records import JudgedClaim
from tests.conftest import ROOT
from tests.study.known_truth import (
    DOUBLINGS,
    RULES,
    SIZES,
    STILL,
    both,
    clippings,
    diffusions,
    family,
    formats,
    importances,
    judged,
    transferred,
    trial,
    verdict,
)
from tests.study.small_results import make, write

FILE = ROOT / "data" / "published.yaml"
FIGURES = published.read(FILE)


def test_a_shuffle_whose_chains_diverged_is_left_out_and_named() -> None:
    values = 50 * DOUBLINGS + np.random.default_rng(0).normal(size=(5, 4))
    broken = np.vstack([values, [[np.nan, 1.0, 2.0, 3.0]]])
    whole, part = (judged("C1", Evidence(full=family(v))) for v in (values, broken))
    assert part.model_copy(update={"why": whole.why, "parts": whole.parts}) == whole
    assert "1 of 6 shuffles" in part.why


def test_a_box_that_never_bound_is_no_further_evidence() -> None:
    once = [trial(mean=float(i), standard_deviation=1.0, stability=float(i)) for i in range(3)]
    once += [trial(sampler="sgnht", mean=9.0, standard_deviation=1.0, stability=0.0)]
    twice = once + [row.model_copy(update={"bounding_box": 0.5}) for row in once]
    assert judged("C3", Evidence(trials=once)) == judged("C3", Evidence(trials=twice))
    blocks = [
        trial(sampler="sgnht", diffusion=a, mean=1 / a, bounding_box=box)
        for a in (0.1, 0.01, 0.001)
        for box in (None, 0.5)
    ]
    assert diffusion_blocks(blocks).tolist() == [[1000.0, 100.0, 10.0]]


def test_healthy_blocks_come_before_those_in_which_merely_no_chain_diverged() -> None:
    rows = [
        trial(sampler="sgnht", lr=lr, diffusion=a, mean=i + 10 * j, healthy=j < 2)
        for j, lr in enumerate((1e-8, 1e-7, 1e-6))
        for i, a in enumerate((0.001, 0.01, 0.1))
    ]
    unhealthy = [row.model_copy(update={"healthy": row.lr == 1e-8}) for row in rows]
    diverged = [
        row.model_copy(update={"diverged_chains": int(row.lr == 1e-6)}) for row in unhealthy
    ]
    assert [len(diffusion_blocks(trials)) for trials in (rows, unhealthy, diverged)] == [2, 3, 2]


def test_four_pairs_of_medians_cannot_decide() -> None:
    search = FIGURES.search
    higher = search.sgld.model_copy(update={"stability": (99.0, 98.0, 97.0, 96.0)})
    figures = FIGURES.model_copy(update={"search": search.model_copy(update={"sgld": higher})})
    found = judged("C3", evidence.of_figures(figures, FILE))
    assert found.verdict == "inconclusive"
    assert found.p_value == pytest.approx(1 / 16)


def test_a_search_at_one_learning_rate_says_nothing_of_it() -> None:
    rows = importances(0.9, 0.1)(np.random.default_rng(0)).importances
    others = [row for row in rows if row.hyperparameter != "lr"]
    assert verdict("C4", Evidence(importances=others)) == "not run"


def test_one_block_of_three_has_one_chance_in_six() -> None:
    blocks = np.array([[6487.0, 5410.0, 2571.0]])
    found = judged("C5", diffusions(blocks, noise_diffusion=0.01))
    assert found.verdict == "inconclusive"
    assert found.p_value == pytest.approx(1 / 6)
    assert "initial friction" in found.why


def test_a_chain_that_diverged_is_a_loss_that_exploded() -> None:
    found = judged("C6", clippings(m=[0.0, 0.001, None], n=[0.0, 0.0, 0.0]))
    assert found.verdict == "not supported"
    assert "exploded: chains of m" in found.why


def test_what_quantisation_does_is_told_of_every_format() -> None:
    rows = [*formats(0.1, 0.001, STILL), *formats(0.2, 0.001, STILL, "int8")]
    found = judged("C10", Evidence(quantisation=rows))
    assert found.effect == 0.1
    assert "m, nf4, restricted: rise of the loss at w* is 0.1" in found.why
    told = {part.name: part.verdict for part in found.parts}
    assert told["m, int8, restricted: rise of the loss at w*"] is None


def test_a_restricted_model_is_not_compared_with_a_whole_one() -> None:
    values = np.array([[10.0, 20.0, 40.0], [11.0, 21.0, 39.0]])
    full, other = family(values), family(values[:, :2])
    restricted = replace(other, sampled_M=SIZES[:2] / 2)
    found = judged("C11", Evidence(full=full, quantised=restricted))
    assert found.verdict == "not supported"
    assert "0.5 of the parameters of m1" in found.why
    for unlike in (replace(other, nbeta=10.0), replace(other, loss="tokens")):
        assert verdict("C11", Evidence(full=full, quantised=unlike)) == "not supported"


def test_nothing_obtained_is_not_run() -> None:
    for claim in judge(Evidence(), RULES):
        assert claim.verdict == "not run"
        assert claim.effect is claim.interval is claim.p_value is None
        assert claim.evidence == []


@pytest.mark.parametrize(
    "values", [np.zeros((4, 4)), np.ones((1, 4)), np.full((4, 4), np.nan), np.ones((4, 2))]
)
def test_degenerate_data_are_inconclusive_and_raise_nothing(values: np.ndarray) -> None:
    with np.errstate(all="raise"):
        found = judge(both(values), RULES)
    assert {claim.verdict for claim in found if claim.id in ("C1", "C2", "C9")} == {"inconclusive"}


# From records


def plan(name: str, models: tuple[str, ...], *repositories: str) -> FamilyPlan:
    return FamilyPlan(
        name=name,
        models=models,
        tokenizer="t",
        weights="float32",
        repositories=repositories,
        search_model=models[0],
        transfer=tuple((model, factor) for model in models for factor in (1 / 3, 1.0, 3.0)),
        original=models,
        clip_quantile=0.95,
    )


STUDY = StudyPlan("demo", plan("mini", ("a", "b", "c")), plan("mini-llama", ("d", "e")), ())
EXPECTED = dict.fromkeys(("A1", "A2", "C1", "C3", "C4", "C6", "C8", "C9", "C10"), "supported")
EXPECTED |= dict.fromkeys(("C2", "C7", "C11"), "not supported") | {"C5": "inconclusive"}
EXPECTED |= dict.fromkeys(("R1", "R2", "R3", "R4"), "not run") | {"R5": "not decided here"}


def finished() -> dict[str, list[Any]]:
    """Records of a study with λ̂ = parameters^0.4 and the original protocol's worst scatter."""
    generator = np.random.default_rng(0)
    rows: dict[str, list[Any]] = {name: [] for name in records.COLLECTED}
    for each in STUDY.families:
        rows["windows"].append(make(records.Extraction, family=each.name, reviews=100, kept=100))
        for i, model in enumerate(each.models):
            named = {"family": each.name, "model": model}
            size = int(3e4 * 3**i)
            llc_S = size**0.4 * (1 + 0.02 * generator.normal(size=4))
            moved = size if each.name == "mini" else size // 2
            common = {"nbeta": 30.0, "parameters": size, "sampled_parameters": moved}
            common |= {"monte_carlo_error": 0.1, "rhat": 1.01, "drift_p": 0.5, "chains": 8}
            common |= {"clipped": [0.01, 0.011, 0.009, 0.01], "shuffles": llc_S.tolist()}
            rows["estimates"] += [
                make(records.Estimate, **named, **common, estimator=estimator)
                for estimator in ("controlled", "devinterp", "published")
            ]
            at = {"loss": 1.0, "descent": 0.0, "descent_error": 0.001}
            rows["baselines"].append(make(records.Baseline, **named, **at))
            rows["training"].append(make(records.Training, **named, epochs=2.0 + i))
            wild_S = (500 * generator.normal(size=8)).tolist()
            of_2023 = {"shuffles": wild_S, "deviations": [9.0] * 8, "chains": 40}
            rows["original"].append(make(records.OriginalProtocol, **named, **of_2023))
            apart_S = generator.normal(size=4) / 2**0.5
            chains = np.stack([llc_S - apart_S, llc_S + apart_S], axis=1).ravel().tolist()
            rows["traces"].append(make(records.ThinnedTrace, **named, chain_llc=chains))
            rows["provenance"].append(make(records.Provenance, **named))
            rows["transfer"] += [
                transferred(factor, factor**0.001 * llc_S, **named) for factor in (1 / 3, 1.0, 3.0)
            ]
    for i in range(12):
        of_trial = {"family": "mini", "model": "a", "mean": float(i)}
        of_sgnht = {"sampler": "sgnht", "stability": 1 + 0.1 * i, "diffusion": 0.01}
        best = {"stability": 10.0 + i, "chosen": i == 11}
        rows["search"] += [trial(**of_trial, **best), trial(**of_trial, **of_sgnht)]
    rows["search"].append(trial(family="mini-llama", model="d", chosen=True))
    for name, value in (("lr", 0.9), ("localization", 0.05)):
        named = {"family": "mini", "sampler": "sgld", "hyperparameter": name}
        found = {"importance": value, "resamples": [value] * 100}
        rows["importances"].append(make(records.Importance, **named, **found))
    of_model = {"family": "mini-llama", "model": "d"}
    rows["quantisation"] = [row.model_copy(update=of_model) for row in formats(0.1, 0.001, STILL)]
    return rows


def verdicts(
    folder: Path, rows: dict[str, list[Any]], study: StudyPlan = STUDY
) -> dict[str, JudgedClaim]:
    write(folder, rows)
    return {claim.id: claim for claim in judge(evidence.of_results(study, folder), RULES)}


def test_a_finished_study_is_judged_from_its_records(tmp_path: Path) -> None:
    found = verdicts(tmp_path, finished())
    assert {name: claim.verdict for name, claim in found.items()} == EXPECTED
    assert "2.0 to 4.0 epochs" in found["A2"].why
    for claim in found.values():
        assert bool(claim.evidence) == (claim.verdict != "not run")
        assert all(Path(source.file).exists() for source in claim.evidence)
    shares = [part for part in found["C7"].parts if "share of the variance" in part.name]
    assert len(shares) == 2 * len(STUDY.models)
    estimators = {part.name.split(": ")[0] for part in found["C1"].parts}
    assert estimators == {"controlled", "devinterp", "published", ORIGINAL}


def test_models_that_were_trained_on_fresh_text_are_said_to_have_text_of_their_own(
    tmp_path: Path,
) -> None:
    rows = finished()
    rows["training"] = [row.model_copy(update={"epochs": 0.0}) for row in rows["training"]]
    why = verdicts(tmp_path, rows)["A2"].why
    assert why.count("each on text of its own") == 2
    assert "epochs" not in why


def test_what_was_not_run_is_named(tmp_path: Path) -> None:
    rows = finished()
    for name in ("estimates", "traces", "provenance", "baselines", "transfer"):
        rows[name] = [row for row in rows[name] if row.model != "e"]
    found = verdicts(tmp_path, rows)
    assert found["C8"].verdict == "supported"
    assert all("Not run: e." in found[name].why for name in ("A1", "C6", "C8"))


def test_sizes_are_compared_at_the_last_checkpoint_of_each(tmp_path: Path) -> None:
    full = replace(STUDY.full, earlier=("b",))
    found = verdicts(tmp_path, finished(), replace(STUDY, full=full))["C1"]
    assert found.verdict == "inconclusive"
    assert found.why.startswith("There are 4 shuffles of 2 models;")


def test_a_model_is_as_healthy_as_its_longest_chains(tmp_path: Path) -> None:
    rows = finished()
    rows["estimates"] = [row.model_copy(update={"rhat": 2.0}) for row in rows["estimates"]]
    assert verdicts(tmp_path, rows)["C8"].verdict == "not supported"


@pytest.mark.parametrize(
    ("repositories", "verdict", "word"),
    [
        (("openai-community/gpt2", "openai-community/gpt2-xl"), "supported", "Radford"),
        (("openai-community/gpt2", "somebody/else"), "inconclusive", "authors"),
    ],
)
def test_a_study_that_was_not_run_has_only_what_is_cited(
    tmp_path: Path, repositories: tuple[str, ...], verdict: str, word: str
) -> None:
    study = StudyPlan("paper", plan("gpt2", ("a", "b"), *repositories), None, ())
    found = verdicts(tmp_path, {name: [] for name in records.COLLECTED}, study)
    assert {name for name, claim in found.items() if claim.verdict != "not run"} == {"A2"}
    assert found["A2"].verdict == verdict
    assert word in found["A2"].why
    assert found["A2"].evidence[0].file == "paper/references.bib"


def test_the_published_figures_support_what_they_can_and_no_more() -> None:
    claims = {claim.id: claim for claim in judge(evidence.of_figures(FIGURES, FILE), RULES)}
    expected = dict.fromkeys(claims, "inconclusive") | {"A2": "supported", "C10": "not run"}
    expected |= {"C7": "not supported", "C11": "not supported"}
    expected |= dict.fromkeys(("R1", "R2", "R3", "R4", "R5"), "not decided here")
    assert {name: claim.verdict for name, claim in claims.items()} == expected
    assert "p = 0.0075" in claims["C1"].why
    assert "p = 0.096" in claims["C1"].why
    assert "8 of 16 λ̂ of gpt2" in claims["A1"].why
    undecided = [claim for claim in claims.values() if claim.verdict == "inconclusive"]
    assert all("decide" in claim.why for claim in undecided)
