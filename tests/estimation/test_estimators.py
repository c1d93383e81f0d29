"""λ̂ from traces: closed forms, devinterp itself, and what is left out is counted."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from devinterp.slt.llc import compute_llc
from scipy import stats

from replicate.estimation import diagnostics, estimators
from tests.scenarios import BASELINE, trace

NBETA = 30.0


def of_losses(loss_SxCxD: np.ndarray, burn_in: int = 0) -> xr.Dataset:
    """A trace without diverged chains, whose minibatches have the loss BASELINE at w*."""
    shuffles, chains, steps = loss_SxCxD.shape
    data = trace(shuffles, chains, burn_in, steps - burn_in)
    data.loss[:], data.init_loss[:] = loss_SxCxD, BASELINE
    return data


def controlled(data: xr.Dataset, c: float | None = None) -> estimators.Result:
    return estimators.summarise(estimators.controlled(data, NBETA, BASELINE, c))


def test_the_estimate_is_nbeta_times_the_excess_loss() -> None:
    """The traces hover 0.1 above the baseline, so λ̂ = 3 for each baseline over all examples."""
    results = estimators.estimates(trace(), nbeta=NBETA, examples=1000, baseline=BASELINE)
    assert tuple(results) == estimators.NAMES
    for name in ("controlled", "paired", "plain"):
        low, high = results[name].interval
        assert low < 3.0 < high
        assert results[name].llc == pytest.approx(3.0, abs=0.7)


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.3, 0.8, 1.0, 1.7])
def test_the_control_variate_is_fitted_and_never_adds_variance(correlation: float) -> None:
    """c is that of the data, and leaves the draws less variance than c = 0 and c = 1 leave."""
    data = trace(draws=5000, correlation=correlation)
    assert estimators.coefficient(data, BASELINE) == pytest.approx(correlation, abs=0.01)
    fitted, *fixed = (
        float(estimators.controlled(data, NBETA, BASELINE, c).var()) for c in (None, 0.0, 1.0)
    )
    assert fitted <= min(fixed) * (1 + 1e-12)
    assert estimators.explained(data, BASELINE) == pytest.approx(1 - fitted / fixed[0])


def test_devinterp_is_devinterps() -> None:
    """`compute_llc` gets a tree with the same losses and the same 32 initial minibatches."""
    data = trace(1, 4, 50)
    init = data.init_loss.isel(draw=slice(0, 32)).mean("draw").isel(shuffle=0)
    dims = ("chain", "step", "batch_sampling", "token_pos")
    losses = (dims, data.loss.values[0][:, :, None, None])
    tree = xr.Dataset({"sampling_loss_micro": losses, "init_loss": ("chain", init.values)})
    tree.attrs["metadata"] = {"config": {"sampler": {"n_beta": NBETA}}}
    theirs = float(compute_llc(xr.DataTree(tree)).llc_mean)
    ours = estimators.summarise(estimators.devinterp(data, NBETA))
    assert ours.llc == pytest.approx(theirs, rel=1e-12)


def test_published_by_hand() -> None:
    """Two chains of four draws are clipped at their medians 2.5 and 6.5; the baseline is 1."""
    data = of_losses(np.array([[[9.0, 1, 2, 3, 4], [9.0, 5, 6, 7, 8]]]), burn_in=1)
    values = estimators.published(data, examples=100, quantile=0.5)
    by_hand = (np.mean([1, 2, 2.5, 2.5, 5, 6, 6.5, 6.5]) - 1) * 100 / np.log(100)
    assert estimators.summarise(values).llc == pytest.approx(by_hand, rel=1e-12)


def test_published_alone_leaves_out_what_is_not_positive() -> None:
    data = trace(6)
    results = estimators.estimates(data, nbeta=NBETA, examples=1000, baseline=BASELINE)
    everything = estimators.summarise(estimators.published(data, examples=1000))
    assert 0 < (everything.shuffles < 0).sum() < 6
    assert everything.llc == pytest.approx(everything.shuffles.mean())
    positive = everything.shuffles[everything.shuffles > 0]
    assert results["published"].llc == pytest.approx(positive.mean())


def test_a_diverged_chain_is_left_out_and_counted() -> None:
    """Its draws before it diverged do not matter."""
    data = trace(2, 3)
    data.loss[0, 1, 40:] = np.nan
    data.diverged[0, 1] = True
    found = controlled(data)
    data.loss[0, 1] = np.nan
    assert (found.chains, found.diverged_chains) == (6, 1)
    assert found.llc == controlled(data).llc
    assert np.isfinite([found.standard_error, found.ess, found.rhat]).all()


def test_there_is_no_estimate_if_all_chains_diverged() -> None:
    data = trace()
    data.loss[:] = np.nan
    data.diverged[:] = True
    result = controlled(data)
    assert np.isnan(result.llc)
    assert result.diverged_chains == result.chains == 6


def test_the_interval_covers_as_promised() -> None:
    """In 92 to 98 % of 400 repeats of 4 independent shuffles, the 95 % interval holds the truth."""
    results = (controlled(trace(4, 2, 0, 50, seed=seed)) for seed in range(400))
    low, high = np.array([result.interval for result in results]).T
    assert 0.92 < np.mean((low < 3.0) & (high > 3.0)) < 0.98


@pytest.mark.parametrize(("halves", "low", "high"), [(False, 0.0, 0.91), (True, 0.91, 0.97)])
def test_the_halves_of_chains_keep_chance_from_ending_them_too_early(
    halves: bool, low: float, high: float
) -> None:
    """Chains of independent draws end when their interval is within ± 5 %, at doubling lengths.

    From four chains alone, some spread is small by chance: their intervals, which end the draws,
    hold λ̂ too rarely.
    """
    generator, held = np.random.default_rng(3), []
    for _ in range(300):
        draws_CxD = generator.normal(1.0, 0.6, (1, 4, 640))
        for length in (40, 80, 160, 320, 640):
            values = xr.DataArray(draws_CxD[:, :, :length], dims=("shuffle", "chain", "draw"))
            below, above = estimators.summarise(values, halves=halves).interval
            if above - below <= 0.1 * values.mean():
                break
        held.append(below <= 1 <= above)
    assert low < np.mean(held) < high


def test_halves_change_no_estimate_and_are_of_shuffles_where_there_are_several() -> None:
    values = estimators.controlled(trace(3, 2, 0, 50), NBETA, BASELINE)
    plain, halved = (estimators.summarise(values, halves=halves) for halves in (False, True))
    means = values.mean("chain").values
    error = stats.sem([*means[:, :25].mean(1), *means[:, 25:].mean(1)])
    assert halved.llc == plain.llc
    assert halved.standard_error == pytest.approx(max(error, plain.standard_error))


def test_drifting_chains_show_in_rhat_and_ess() -> None:
    data = trace(1, 4)
    good = controlled(data, c=1.0)
    data["loss"] = data.loss + 0.5 * np.linspace(0, 1, data.sizes["draw"])
    bad = controlled(data, c=1.0)
    assert good.rhat < 1.02 < 1.2 < bad.rhat
    assert bad.ess < 0.1 * good.ess


def test_draws_that_do_not_move_have_no_effective_number() -> None:
    assert np.isnan(diagnostics.ess(np.ones((2, 10))))


def test_burn_in_is_counted_in_the_evaluations() -> None:
    values = estimators.controlled(trace(), NBETA, BASELINE)
    bare, burnt = (estimators.summarise(values, burn_in=steps) for steps in (0, 200))
    assert burnt.evaluations == pytest.approx(2 * bare.evaluations)


def test_clipping_takes_what_stands_above_the_quantile() -> None:
    """Excess losses 1, 2, 3, 4 lose 2 of 10 at the median 2.5. A diverged chain has no change."""
    data = of_losses(BASELINE + np.array([[[1.0, 2, 3, 4]], [[1.0, 2, 3, 4]]]))
    data.diverged[1] = True
    found = estimators.clipping(data, NBETA, BASELINE, 0.5)
    np.testing.assert_allclose(found, [-0.2, np.nan], rtol=1e-12)


def test_running_estimates_end_at_the_estimate() -> None:
    data = trace(3, 2, 10, 50)
    mean_D, error_D = estimators.running(estimators.controlled(data, NBETA, BASELINE))
    result = controlled(data)
    assert mean_D[-1] == pytest.approx(result.llc)
    assert error_D[-1] == pytest.approx(result.standard_error)
    assert len(mean_D) == 50
