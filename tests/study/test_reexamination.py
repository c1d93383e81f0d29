"""The original protocol's flaw is found where it is, and not where it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from replicate.study import protocol_2023 as reexamination

TEXTS = 18_805
LOSS = 3.0


def protocol(
    groups: int = 40,
    seed: int = 0,
    *,
    moved: float = 0.01,
    chain_noise: float = 0.0,
    padded: bool = False,
) -> xr.Dataset:
    """Chains that stand `moved` nats above w*, each minibatch with a luck of its own of s.d. 0.5 at
    w* and after.
    """
    rng = np.random.default_rng(seed)
    shape = (groups, 5, 40)
    luck = rng.normal(0, 0.5, shape)
    pads = rng.binomial(5, 0.24, shape) if padded else np.zeros(shape, int)
    init = LOSS + luck + 3.0 * (pads - (1.2 if padded else 0.0))
    loss = init + moved + rng.normal(0, chain_noise, shape)
    dims = ("group", "chain", "draw")
    arrays = {
        "loss": (dims, loss),
        "init_loss": (dims, init),
        "padded": (dims, pads),
        "failed": (dims[:2], np.zeros(shape[:2], bool)),
    }
    return xr.Dataset(arrays, {"draw": np.arange(40)})


def reexamine(trace: xr.Dataset, **options: Any) -> reexamination.Reexamination:
    return reexamination.reexamine(
        trace, **({"nbeta": 457.0, "texts": TEXTS, "loss": LOSS, "quantile": 0.95} | options)
    )


def test_the_factor_is_n_over_log_n() -> None:
    assert reexamination.factor(18_805) == pytest.approx(1910.7, abs=0.05)


def test_the_protocol_by_another_hand() -> None:
    """A plain loop over chains and draws, as the original's code had it: each chain clipped at its
    quantile, the first draw of chain 0, unclipped, for the baseline, mean and standard deviation
    over chains.
    """
    trace = protocol(groups=3, chain_noise=0.2)
    found = reexamine(trace)
    for group in range(3):
        chains = []
        for chain in range(5):
            losses = [float(value) for value in trace.loss.values[group, chain]]
            top = float(np.quantile(losses, 0.95))
            clipped = [min(value, top) for value in losses]
            chains.append(
                TEXTS
                / np.log(TEXTS)
                * (sum(clipped) / len(clipped) - float(trace.loss.values[group, 0, 0]))
            )
        assert found.groups[group] == pytest.approx(np.mean(chains), rel=1e-12)
        assert found.deviations[group] == pytest.approx(np.std(chains, ddof=1), rel=1e-12)


def test_luck_explains_a_chain_that_hardly_moved() -> None:
    """λ̂ = luck + noise of the mean of 200 draws: R² = 1/(1 + 1/200) at least, 0.95 with 40
    shuffles' scatter.
    """
    found = reexamine(protocol())
    assert found.r_squared > 0.95
    assert np.std(found.controlled) < 1e-6 * np.std(found.groups)


def test_luck_explains_little_of_a_chain_whose_loss_is_its_own() -> None:
    """The chain's noise is 20 times the minibatch's luck."""
    assert reexamine(protocol(chain_noise=10.0)).r_squared < 0.2


def test_more_baseline_minibatches_shrink_the_spread_by_their_root() -> None:
    spread = reexamine(protocol(groups=200)).spread
    np.testing.assert_allclose(spread[:4] / spread[0], 1 / np.sqrt([1, 2, 4, 8]), rtol=0.12)


def test_padded_labels_explain_the_minibatch_loss_they_make() -> None:
    """Var = 0.5² + 3²·5·0.24·0.76 = 0.25 + 8.2: 97 %."""
    assert reexamine(protocol(padded=True)).padded_variance == pytest.approx(0.97, abs=0.01)
    assert reexamine(protocol()).padded_variance == 0.0


def test_models_that_share_a_baseline_minibatch_share_its_sign() -> None:
    shared = np.array(
        [reexamine(protocol(seed=3, chain_noise=noise)).groups for noise in (0.0, 0.01, 0.02, 0.03)]
    )
    own = np.array([reexamine(protocol(seed=seed)).groups for seed in range(4)])
    assert reexamination.sign_agreement(shared) > 0.9
    assert reexamination.sign_agreement(own) < 0.5
