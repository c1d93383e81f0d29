"""λ̂ from traces: closed forms, devinterp itself, and what is left out is counted."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from devinterp.slt.llc import compute_llc

from replicate.estimation import estimators
from tests.scenarios import BASELINE, trace

NBETA = 30.0


def test_the_estimate_is_nbeta_times_the_excess_loss() -> None:
    """The traces hover 0.1 above the baseline: λ̂ = 3, by each of the three baselines over all
    examples, within its interval.
    """
    results = estimators.estimates(trace(), nbeta=NBETA, examples=1000, baseline=BASELINE)
    for name in ("controlled", "paired", "plain"):
        low, high = results[name].interval
        assert low < 3.0 < high
        assert results[name].llc == pytest.approx(3.0, abs=0.7)


def test_the_fitted_coefficient_is_that_of_the_data() -> None:
    assert estimators.coefficient(trace(correlation=0.8, draws=5000), BASELINE) == pytest.approx(
        0.8, abs=0.01
    )
    assert estimators.coefficient(trace(correlation=0.0, draws=5000), BASELINE) == pytest.approx(
        0.0, abs=0.01
    )


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.3, 0.8, 1.0, 1.7])
def test_the_control_variate_never_adds_variance(correlation: float) -> None:
    """The fitted c leaves the draws the least variance, less than c = 0 and c = 1 leave."""
    data = trace(correlation=correlation)
    spread = [
        float(estimators.controlled(data, NBETA, BASELINE, c).var()) for c in (None, 0.0, 1.0)
    ]
    assert spread[0] <= min(spread[1:]) * (1 + 1e-12)


def test_devinterp_is_devinterps() -> None:
    """`compute_llc` on a tree that holds the same losses and the same 32 initial minibatches."""
    data = trace(groups=1, chains=4, burn_in=50)
    init = data.init_loss.isel(draw=slice(0, 32)).mean("draw").isel(group=0)
    tree = xr.DataTree(
        xr.Dataset(
            {
                "sampling_loss_micro": (
                    ("chain", "step", "batch_sampling", "token_pos"),
                    data.loss.values[0][:, :, None, None],
                ),
                "init_loss": ("chain", init.values),
            },
            attrs={"metadata": {"config": {"sampler": {"n_beta": NBETA}}}},
        )
    )
    theirs = compute_llc(tree)
    ours = estimators.summarise(estimators.devinterp(data, NBETA))
    assert ours.llc == pytest.approx(float(theirs.llc_mean), rel=1e-12)


def test_published_by_hand() -> None:
    """Two chains of four draws, quantile 0.5: clipped at their medians 2.5 and 6.5; baseline 1, the
    first draw of chain 0.
    """
    loss = np.array([[[9.0, 1, 2, 3, 4], [9.0, 5, 6, 7, 8]]])
    dims = ("group", "chain", "draw")
    data = xr.Dataset(
        {
            "loss": (dims, loss),
            "init_loss": (dims, loss),
            "failed": (dims[:2], np.zeros((1, 2), bool)),
        },
        {"draw": np.arange(-1, 4)},
    )
    values = estimators.published(data, examples=100, quantile=0.5)
    by_hand = (np.mean([1, 2, 2.5, 2.5, 5, 6, 6.5, 6.5]) - 1) * 100 / np.log(100)
    assert estimators.summarise(values).llc == pytest.approx(by_hand, rel=1e-12)


def test_published_alone_leaves_out_what_is_not_positive() -> None:
    data = trace(groups=6)
    values = estimators.published(data, examples=1000)
    everything, positive = (
        estimators.summarise(values),
        estimators.summarise(values, positive_only=True),
    )
    assert (everything.groups < 0).any()
    assert (everything.groups > 0).any()
    assert everything.llc == pytest.approx(everything.groups.mean())
    assert positive.llc == pytest.approx(everything.groups[everything.groups > 0].mean())
    assert (
        estimators.estimates(data, nbeta=NBETA, examples=1000, baseline=BASELINE)["published"].llc
        == positive.llc
    )


def test_a_failed_chain_is_left_out_and_counted() -> None:
    data = trace(groups=2, chains=3)
    broken = data.copy(deep=True)
    broken.loss[0, 1, 40:] = np.nan
    broken.failed[0, 1] = True
    without = data.copy(deep=True)
    without.loss[0, 1] = np.nan
    without.failed[0, 1] = True
    result = estimators.summarise(estimators.controlled(broken, NBETA, BASELINE))
    assert (result.chains, result.failed_chains) == (6, 1)
    assert result.llc == estimators.summarise(estimators.controlled(without, NBETA, BASELINE)).llc
    assert np.isfinite([result.standard_error, result.ess, result.rhat]).all()


def test_when_every_chain_failed_there_is_no_estimate() -> None:
    data = trace()
    data.loss[:] = np.nan
    data.failed[:] = True
    result = estimators.summarise(estimators.controlled(data, NBETA, BASELINE))
    assert np.isnan(result.llc)
    assert result.failed_chains == result.chains == 6


def test_the_interval_covers_as_promised() -> None:
    """400 repeats of 4 independent groups: the 95 % interval holds the truth in 92 to 98 % of
    them.
    """
    hits = 0
    for seed in range(400):
        low, high = estimators.summarise(
            estimators.controlled(trace(4, 2, 0, 50, seed=seed), NBETA, BASELINE)
        ).interval
        hits += low < 3.0 < high
    assert 0.92 < hits / 400 < 0.98


def test_drifting_chains_show_in_rhat_and_ess() -> None:
    steady = trace(groups=1, chains=4)
    drifting = steady.copy(deep=True)
    drifting["loss"] = steady.loss + 0.5 * np.linspace(0, 1, steady.sizes["draw"])
    good, bad = (
        estimators.summarise(estimators.controlled(data, NBETA, BASELINE, c=1.0))
        for data in (steady, drifting)
    )
    assert good.rhat < 1.02 < 1.2 < bad.rhat
    assert bad.ess < 0.1 * good.ess


def test_draws_that_do_not_move_have_no_effective_number() -> None:
    assert np.isnan(estimators.diagnostics.ess(np.ones((2, 10))))
    assert np.isnan(estimators.diagnostics.rhat(np.ones((0, 10))))


def test_the_control_variate_takes_the_share_rho_squared() -> None:
    """Var(y) = 0.8²·0.2² + 0.05², of which 0.05² is left: ρ² = 0.0256/0.0281."""
    assert estimators.explained(trace(correlation=0.8, draws=5000), BASELINE) == pytest.approx(
        0.0256 / 0.0281, abs=0.01
    )
    assert estimators.explained(trace(correlation=0.0, draws=5000), BASELINE) == pytest.approx(
        0.0, abs=0.01
    )


def test_the_running_estimate_ends_at_the_estimate() -> None:
    values = estimators.controlled(trace(groups=4), NBETA, BASELINE)
    result = estimators.summarise(values)
    mean_D, error_D = estimators.running(values)
    assert mean_D[-1] == pytest.approx(result.llc, rel=1e-12)
    assert error_D[-1] == pytest.approx(result.standard_error, rel=1e-12)
    assert mean_D[9] == pytest.approx(float(values.isel(draw=slice(0, 10)).mean()), rel=1e-12)


def test_the_evaluations_promised_give_the_error_promised() -> None:
    """Chains as many times longer as `evaluations` says have a standard error of 1 % of λ̂, within
    the scatter of 24 groups' errors.
    """
    data = trace(groups=24, chains=1, burn_in=0, draws=100)
    result = estimators.summarise(estimators.controlled(data, NBETA, BASELINE, c=0.0))
    times = result.evaluations / (24 * 100)
    longer = trace(groups=24, chains=1, burn_in=0, draws=round(100 * times), seed=1)
    found = estimators.summarise(estimators.controlled(longer, NBETA, BASELINE, c=0.0))
    assert found.standard_error == pytest.approx(0.01 * result.llc, rel=0.5)


def test_burn_in_is_counted_in_the_evaluations() -> None:
    values = estimators.controlled(trace(), NBETA, BASELINE)
    bare, burnt = (
        estimators.summarise(values),
        estimators.summarise(values, burn_in=values.sizes["draw"]),
    )
    assert burnt.evaluations == pytest.approx(2 * bare.evaluations)


def test_clipping_takes_what_stands_above_the_quantile() -> None:
    """Excess losses 1, 2, 3, 4 in one chain, clipped at the median 2.5: 2 of 10. A group with a
    failed chain has none.
    """
    loss = BASELINE + np.array([[[1.0, 2, 3, 4]], [[1.0, 2, 3, 4]]])
    dims = ("group", "chain", "draw")
    arrays = {
        "loss": (dims, loss),
        "init_loss": (dims, np.full_like(loss, BASELINE)),
        "failed": (dims[:2], np.array([[False], [True]])),
    }
    found = estimators.clipping(xr.Dataset(arrays, {"draw": np.arange(4)}), NBETA, BASELINE, 0.5)
    np.testing.assert_allclose(found, [-0.2, np.nan], rtol=1e-12)
