"""The benchmark counts what it says, and every peer does the same work as ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import cluster, lengths, limit, plan, results, table
from benchmarks.limit import Rates
from benchmarks.measure import Measurement
from benchmarks.peers import NAMES, adapter, version
from benchmarks.rounds import Runs
from benchmarks.work import WORKS, Work, build, model, parameters, save, tokens
from replicate.validation.coverage import Problem

TINY = Work("tiny", "gpt2", 2, 24, 2, 300, 12, 4, 2, (1, 2), NAMES, batches=1)


@pytest.fixture(params=["gpt2", "llama"])
def work(request: pytest.FixtureRequest, tmp_path: Path) -> Work:
    return saved(request.param, tmp_path)


def saved(architecture: Literal["gpt2", "llama"], folder: Path) -> Work:
    work = replace(TINY, architecture=architecture, folder=folder)
    save(work, folder)
    return work


def test_the_operations_of_all_positions_are_those_that_torch_counts(work: Work) -> None:
    network = model(work, "eager")  # of fused attention torch counts no operations on a CPU
    with FlopCounterMode(display=False) as counter:
        network(input_ids=tokens(work)[:, :-1], use_cache=False).logits.sum().backward()
    assert counter.get_total_flops() == 3 * limit.forward(work, whole=True)


def test_of_the_last_block_keys_and_values_alone_are_needed_everywhere() -> None:
    """One block of GPT-2 by hand: P = 11, d = 24, V = 300, B = 4."""
    one = replace(TINY, layers=1)
    everywhere = 11 * 2 * 2 * 24 * 24
    at_the_last = 2 * 10 * 24 * 24 + 2 * 2 * 24 * 11 + 2 * 24 * 300
    assert limit.needed(one) == 3 * 4 * (everywhere + at_the_last)


def test_no_work_needs_more_than_all_positions() -> None:
    assert all(limit.needed(work) < 3 * limit.forward(work, whole=True) for work in WORKS.values())


def test_parameters_are_counted_without_making_them(work: Work) -> None:
    assert parameters(work) == sum(parameter.numel() for parameter in build(work).parameters())
    assert parameters(WORKS["gpt2-xl"]) == 1_557_611_200


@pytest.mark.parametrize("logits", ["all", "last"])
@pytest.mark.parametrize("name", ["ours", *NAMES])
def test_every_adapter_starts_each_chain_at_w_star_and_goes_on(
    name: str, logits: Literal["all", "last"], tmp_path: Path
) -> None:
    """The text is one minibatch, so that the first loss is that of the model by hand, whoever
    samples.
    """
    if name != "ours" and version(name) is None:
        pytest.skip(f"{name} is not installed")
    work = replace(saved("gpt2", tmp_path), logits=logits)
    losses_CxT = np.asarray(adapter(name).run(work, 2))
    assert losses_CxT.shape == (2, 2)
    np.testing.assert_allclose(losses_CxT[:, 0], by_hand(work), rtol=1e-5)
    assert np.isfinite(losses_CxT).all()
    assert (losses_CxT[:, 1] != losses_CxT[:, 0]).all()
    assert losses_CxT[0, 1] != losses_CxT[1, 1]


def by_hand(work: Work) -> float:
    tokens_NxL = tokens(work)
    with torch.no_grad():
        logits = model(work)(input_ids=tokens_NxL[:, :-1]).logits[:, -1]
    return cross_entropy(logits, tokens_NxL[:, -1]).item()


def test_ratios_are_taken_within_a_round() -> None:
    """The machine became twice as slow in the second round; the ratio is 3 in both."""
    ours = [Measurement(1.0, 0, 10, 5), Measurement(2.0, 0, 10, 5)]
    theirs = Runs([Measurement(3.0, 0, 10, 10), Measurement(6.0, 0, 10, 10)])
    entry = results.entry(theirs, ours, 0.9)
    assert entry["ratio"] == {"median": 3.0, "min": 3.0, "max": 3.0}
    assert entry["memory_ratio"]["median"] == 2.0
    assert entry["fraction_of_limit"] == pytest.approx(0.9 / 4.5)


def test_what_was_not_run_says_why() -> None:
    rates = dict.fromkeys(["float32", "bfloat16"], Rates(1e12, 1e10))
    timings = {"ours": Runs([Measurement(1.0, 0, 10, 5)]), "posteriors": Runs(lack="not installed")}
    works = {
        "tiny": results.row(TINY, None, timings, rates),
        "gpt2-xl": results.row(WORKS["gpt2-xl"], "needs a CUDA GPU", {}, rates),
    }
    text = table.table({"here": {"works": works}})
    assert "posteriors: not installed" in text
    assert "not run: needs a CUDA GPU" in text


def test_a_new_run_leaves_other_works_and_machines_as_they_were() -> None:
    two = {"cores": 2}
    old = {
        "here": {"machine": two, "works": {"a": 1, "b": 2}, "rates": {"f": 6}, "scaling": 3},
        "there": {"machine": {"cores": 4}, "works": {"a": 4}},
    }
    new = {"machine": two, "works": {"a": 5}, "rates": {"b": 7}}
    assert results.merged(old, "here", new) == {
        "here": old["here"] | {"works": {"a": 5, "b": 2}, "rates": {"f": 6, "b": 7}},
        "there": old["there"],
    }
    other = {"machine": {"cores": 3}, "works": {}}
    assert results.merged(old, "here", other)["here"] == other


@pytest.mark.parametrize("weights", ["float32", "nf4", "dequantised"])
def test_what_a_plan_is_measured_by_moves_a_model_in_every_format(
    weights: str, tmp_path: Path
) -> None:
    small = plan.llama(1, 64, 128, 2)
    plan.make(small, tmp_path)
    assert plan.chain(plan.family((small, 4, {"weights": weights})), tmp_path) > 0


def test_all_cuts_of_a_chain_take_the_gradients_of_one_long_chain() -> None:
    for row in lengths.ROWS:
        shared = lengths.BURN_IN if row.start == "branch" else 0
        spent = shared + row.chains * (row.burn_in + row.draws)
        assert lengths.GRADIENTS - row.chains < spent <= lengths.GRADIENTS, row.name
        assert row.in_sequence == shared + row.burn_in + row.draws


def test_the_chains_of_a_branch_begin_together_and_away_from_w_star() -> None:
    """Chains of another repeat begin elsewhere."""
    problem = Problem("last", 2023)
    walkers = lengths.started(problem, lengths.Row(3, "branch", 0), range(2))
    assert walkers.stack is not None
    for parameter, weights_CxP in zip(problem.task.parameters, walkers.stack.weights, strict=True):
        a, b, c, other, *_ = weights_CxP
        assert a.equal(b)
        assert a.equal(c)
        assert not a.equal(other)
        assert not a.equal(parameter)


def test_the_efficiency_of_a_cluster_and_its_overhead_a_unit() -> None:
    """Two units of 10 s for each of 64 workers take 22 s instead of 20, of which 0.64 s are the
    scheduler's.
    """
    found = cluster.summary(64, 10.0, [(22.0, 0.64)])
    assert cluster.EACH == 2
    assert found["efficiency"]["median"] == pytest.approx(20 / 22)
    assert found["overhead"] == pytest.approx(2 / 128)
    assert found["cpu"]["median"] == pytest.approx(0.005)
