"""Records hold what a trace shows, and take everything else from what the trace says of itself."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import xarray as xr

from replicate.study import collecting
from replicate.study.records import Estimate

LOSS = 2.0  # at w*, nats
MACHINE = {"device": "a CPU", "threads": 1, "versions": {"numpy": "2"}}
LIMITS = {"rhat": 1.05, "drift": 0.01, "local": 0.25}


def trace(rise: float = 0.1, diverged: bool = False, **attributes: Any) -> xr.Dataset:
    """Chains `rise` nats above w*, with the noise of the same minibatches at w*."""
    rng = np.random.default_rng(0)
    shape, dims = (4, 2, 220), ("shuffle", "chain", "draw")
    noise = rng.normal(0, 0.2, shape)
    loss = LOSS + rise + noise + rng.normal(0, 0.01, shape)
    failed = np.zeros(shape[:2], bool)
    if diverged:
        failed[1] = True
        loss[1, :, 100:] = np.nan
    task = {"weights": "nf4", "parameters": 10, "sampled_parameters": 9, "examples": 1000}
    attrs = {
        "family": "f",
        "model": "m",
        "seed": 7,
        "sampler": {"lr": 1e-3, "localization": 100.0},
        "sampling": {"nbeta": 30.0},
        "task": task | {"windows": "text", "model": "weights"},
        "baseline": {"loss": LOSS},
        "code": "code",
        "machine": MACHINE,
    }
    variables: dict[str, Any] = {"loss": (dims, loss), "init_loss": (dims, LOSS + noise)}
    variables["diverged"] = (dims[:2], failed)
    return xr.Dataset(variables, {"draw": np.arange(-20, 200)}, attrs | attributes)


def by_estimator(found: xr.Dataset) -> dict[str, Estimate]:
    return {row.estimator: row for row in collecting.estimates(found, 0.95)}


def test_llc_is_nbeta_times_the_rise_of_the_loss() -> None:
    for nbeta in (30.0, 60.0):
        rows = by_estimator(trace(sampling={"nbeta": nbeta}))
        assert rows["controlled"].llc == pytest.approx(nbeta * 0.1, rel=0.02)
        assert rows["controlled"].coefficient == pytest.approx(1.0, abs=0.01)
        assert {row.nbeta for row in rows.values()} == {nbeta}
    assert (rows["plain"].weights, rows["plain"].model, rows["plain"].steps) == ("nf4", "m", 220)


def test_labels_are_counted_by_the_loss() -> None:
    """`published` multiplies by n/ln n for n labels: one a window, or all but its first token."""
    sizes = trace().attrs["task"] | {"length": 48}
    last, whole = (by_estimator(trace(task=sizes | loss)) for loss in ({}, {"loss": "tokens"}))
    ratio = whole["published"].llc / last["published"].llc  # pyright: ignore
    assert ratio == pytest.approx(47 * np.log(1000) / np.log(47_000))
    assert whole["controlled"].llc == last["controlled"].llc


def test_what_is_not_finite_is_null() -> None:
    row = by_estimator(trace(diverged=True))["controlled"]
    assert row.diverged_chains == 2
    assert row.shuffles[1] is row.clipped[1] is None
    assert row.llc == pytest.approx(3.0, rel=0.02)
    one_chain = by_estimator(trace().isel(shuffle=[0], chain=[0]))["controlled"]
    assert one_chain.llc is not None
    assert one_chain.standard_error is one_chain.interval is None


def test_transfer_has_the_learning_rate_of_its_own_trace() -> None:
    row = collecting.transferred(trace(sampler={"lr": 5e-4, "localization": 1.0}), 0.5)
    assert (row.factor, row.lr) == (0.5, 5e-4)
    assert row.llc == pytest.approx(3.0, rel=0.02)


def test_formats_are_compared_with_float32_shuffle_by_shuffle() -> None:
    losses_N = np.random.default_rng(1).normal(LOSS, 0.1, 500).astype(np.float32)
    report = {"loss": 1.0, "gradient_norm_squared": 0.1, "descent": 0.0, "descent_error": 0.1}
    report |= {"sampled_parameters": 9, "standard_error": 5.0}
    in_float32 = trace().attrs["task"] | {"weights": "float32"}
    one = (trace(task=in_float32), losses_N, report)
    other = (trace(0.2), losses_N + np.float32(0.5), report)
    first, second = collecting.quantised("restricted", [one, other])
    assert (first.rise, first.changes) == (0.0, [0.0] * 4)
    assert second.rise == pytest.approx(0.5)
    assert second.changes == pytest.approx([1.0] * 4, rel=0.05)
    assert (second.weights, second.moved) == ("nf4", "restricted")
    assert second.standard_error != 5.0  # that is the error of the loss
    (alone,) = collecting.quantised("restricted", [other])
    assert alone.rise is None
    assert alone.changes == []


def test_a_thinned_trace_keeps_the_means_of_its_stretches() -> None:
    found = trace()
    row = collecting.thinned(found, 100, **LIMITS)
    assert row.step[:2] == [-20, -17]
    assert row.chains[0][0] == pytest.approx(float(found.loss[0, 0, :3].mean()))
    assert row.running[5] is None
    assert row.running[-1] == pytest.approx(by_estimator(found)["controlled"].llc)
    assert not row.advice
    assert "not local" in collecting.thinned(trace(rise=2.0), 100, **LIMITS).advice[0]


def test_metrics_are_those_of_the_default_estimator() -> None:
    row = by_estimator(trace())["controlled"]
    expected = {"llc": row.llc, "rhat": row.rhat, "ess": row.ess}
    expected |= {"standard_error": row.standard_error}
    assert collecting.metrics(list(by_estimator(trace()).values())) == {"m": expected}


def test_provenance_hashes_the_numbers_and_not_where_they_are_from() -> None:
    def of(found: xr.Dataset) -> Any:
        return collecting.provenance(found, parameters={"model": "p"}, weights=None)

    row, moved = of(trace()), of(trace(machine=MACHINE | {"device": "a GPU"}))
    assert (row.seed, row.windows, row.code, row.threads) == (7, "text", "code", 1)
    assert (row.device, moved.device) == ("a CPU", "a GPU")
    assert row.traces == moved.traces
    assert of(trace(rise=0.2)).traces != row.traces


def test_the_hash_of_a_part_is_that_of_its_canonical_json() -> None:
    parts = {"a": {"y": 1.0, "x": None}, "b": {"x": None, "y": 1.0}, "c": {"x": 0}}
    texts = {"a": b'{"x":null,"y":1.0}', "b": b'{"x":null,"y":1.0}', "c": b'{"x":0}'}
    expected = {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}
    assert collecting.hashes(parts) == expected
