"""The flaw of the protocol of 2023 is found where it is, and not where it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from replicate.study import protocol_2023
from replicate.study.records import OriginalProtocol

TEXTS = 18_805
LOSS = 3.0


def protocol(shuffles: int = 40, chain_noise: float = 0.0, padded: bool = False) -> xr.Dataset:
    """Chains that stand 0.01 nats above w*; the error of each minibatch has a standard deviation of
    0.5 at w* and after.
    """
    rng = np.random.default_rng(0)
    shape, dims = (shuffles, 5, 40), ("shuffle", "chain", "draw")
    error = rng.normal(0, 0.5, shape)
    pads = rng.binomial(5, 0.24, shape) if padded else np.zeros(shape, int)
    init = LOSS + error + 3.0 * (pads - (1.2 if padded else 0.0))
    loss = init + 0.01 + rng.normal(0, chain_noise, shape)
    variables: dict[str, Any] = {"loss": (dims, loss), "init_loss": (dims, init)}
    variables |= {"padded": (dims, pads), "diverged": (dims[:2], np.zeros(shape[:2], bool))}
    attrs = {"family": "f", "model": "m", "texts": TEXTS, "padded_labels": 0.24}
    attrs |= {"sampling": {"nbeta": 457.0}, "baseline": {"loss": LOSS}}
    attrs |= {"sampler": {}, "task": {}, "machine": {}}
    return xr.Dataset(variables, {"draw": np.arange(40)}, attrs)


def analyse(**options: Any) -> OriginalProtocol:
    return protocol_2023.original(protocol(**options), 0.95)


def test_the_original_protocol_has_two_temperatures() -> None:
    """λ̂ has the factor n/ln n, and the sampler has nβ: 457 · 0.01 nats is 4.57."""
    row = analyse()
    assert (row.nbeta, row.factor) == (457.0, pytest.approx(1910.7, abs=0.05))
    assert row.controlled == pytest.approx([4.57] * 40)
    assert (row.chains, row.steps, row.padded_labels) == (200, 40, 0.24)


def test_the_protocol_written_as_a_plain_loop_gives_the_same() -> None:
    """As the code of 2023 had it: each chain is clipped at its quantile; the first draw of chain 0
    is the baseline and is not clipped.
    """
    found, losses_SxCxD = analyse(shuffles=3, chain_noise=0.2), protocol(3, 0.2).loss.values
    for shuffle, losses_CxD in enumerate(losses_SxCxD):
        chains = []
        for losses in losses_CxD.tolist():
            top = float(np.quantile(losses, 0.95))
            mean = sum(min(value, top) for value in losses) / len(losses)
            chains.append(TEXTS / np.log(TEXTS) * (mean - float(losses_CxD[0, 0])))
        assert found.shuffles[shuffle] == pytest.approx(np.mean(chains), rel=1e-12)
        assert found.deviations[shuffle] == pytest.approx(np.std(chains, ddof=1), rel=1e-12)


def test_the_baseline_error_explains_a_chain_that_hardly_moved() -> None:
    """λ̂ = baseline error + noise of the mean of 200 draws: R² is 1/(1 + 1/200), and above 0.95 with
    the scatter of 40 shuffles.
    """
    found = analyse()
    assert found.r_squared is not None
    assert found.r_squared > 0.95


def test_the_baseline_error_explains_little_where_the_chain_has_noise_of_its_own() -> None:
    """The noise of the chain is 20 times the baseline error."""
    r_squared = analyse(chain_noise=10.0).r_squared
    assert r_squared is not None
    assert r_squared < 0.2


def test_more_baseline_minibatches_shrink_the_spread_by_the_root_of_their_number() -> None:
    spread = np.array(analyse(shuffles=200).spread, float)
    np.testing.assert_allclose(spread[:4] / spread[0], 1 / np.sqrt([1, 2, 4, 8]), rtol=0.12)


def test_padded_labels_explain_the_minibatch_loss_they_make() -> None:
    """Var = 0.5² + 3²·5·0.24·0.76 = 0.25 + 8.2: 97 %."""
    assert analyse(padded=True).padded_variance == pytest.approx(0.97, abs=0.01)
    assert analyse().padded_variance == 0.0
