"""Chains sample the posterior that SCIENCE says, start at w*, fail in the open, and are the same
each time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from replicate.sampling import Chain, Plan, Setting, Space, sample
from tests.scenarios import Quadratic, packed, quadratic_llc


def run(
    target: Quadratic, setting: Setting, nbeta: float = 20.0, *, draws: int = 4000, **options: Any
) -> xr.Dataset:
    done = options.pop("done", None)
    shape: dict[str, Any] = {
        "batch_size": 1,
        "groups": 1,
        "chains": 2,
        "burn_in": 300,
        "draws": draws,
    } | options
    return sample(
        Space([target.w]),
        target,
        np.zeros(64, np.float32),
        setting,
        Plan(nbeta, **shape),
        order=lambda group: np.random.default_rng(group).permutation(64),
        noise=lambda group, chain: 100 * group + chain,
        advance=lambda steps=1, note="": None,
        done=done,
    )


def llc(trace: xr.Dataset, nbeta: float = 20.0) -> float:
    return nbeta * float(trace.loss.sel(draw=slice(0, None)).mean())


H = np.array([0.5, 1.0, 2.0, 4.0] * 8)


@pytest.mark.parametrize(
    ("localization", "lr"),
    [(0.0, 0.005), (30.0, 0.01), (5.0, 0.02)],
    ids=["no pull", "pull", "large steps, where ε biases λ̂ by a tenth"],
)
def test_sgld_on_a_quadratic_has_the_exact_llc(localization: float, lr: float) -> None:
    """32 weights, 8000 draws: Monte-Carlo error is about 1 %, the bias of the large step 12 %."""
    trace = run(Quadratic(H), Setting("sgld", lr, localization=localization))
    assert llc(trace) == pytest.approx(quadratic_llc(H, 20.0, localization, lr), rel=0.03)


def test_weight_decay_pulls_to_zero_and_localization_to_w_star() -> None:
    """Around w* = 1 the mean of w is nβh/(nβh + μ) = 1/2 under weight decay μ = nβh, its variance
    1/(nβh + μ); under γ the mean is w*.
    """
    decay = run(Quadratic(np.ones(32), centre=1.0), Setting("sgld", 0.005, weight_decay=20.0))
    pull = run(Quadratic(np.ones(32), centre=1.0), Setting("sgld", 0.005, localization=20.0))
    assert llc(decay) / 20 == pytest.approx(16 * (0.25 + 1 / 40), rel=0.03)
    assert llc(pull) / 20 == pytest.approx(16 / 40, rel=0.08)


def test_sgnht_on_a_quadratic_has_half_the_dimension() -> None:
    """Regular model: λ = d/2 = 16."""
    trace = run(
        Quadratic(H), Setting("sgnht", 1e-4, diffusion=0.05), draws=20_000, burn_in=2000, chains=1
    )
    assert llc(trace) == pytest.approx(16.0, rel=0.05)


@pytest.mark.parametrize(
    "setting",
    [
        Setting("sgld", 0.01, bounding_box=0.05),
        Setting("sgnht", 1e-3, diffusion=0.1, bounding_box=0.05),
    ],
)
def test_no_weight_leaves_the_box(setting: Setting) -> None:
    """Each of 32 weights within 0.05: the loss is at most ½·Σh·0.05²."""
    trace = run(Quadratic(H, centre=1.0), setting, nbeta=0.01, draws=200)
    assert float(trace.loss.max()) <= 0.5 * H.sum() * 0.05**2 * (1 + 1e-9)
    assert float(trace.loss.max()) > 0


def test_every_chain_starts_at_w_star_and_leaves_the_model_there() -> None:
    target = Quadratic(H, centre=0.7)
    trace = run(target, Setting("sgld", 0.01), groups=2, draws=10, burn_in=5)
    assert (trace.loss.sel(draw=-5) == 0).all()
    assert (trace.loss.sel(draw=-4) > 0).all()
    np.testing.assert_array_equal(target.w.detach().numpy(), np.full(32, 0.7))


def test_a_chain_that_fails_is_recorded_and_spares_the_others() -> None:
    class Cliff(Quadratic):
        calls = 0

        def __call__(self, index_B: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return super().__call__(index_B) * (float("nan") if self.calls == 7 else 1.0)

    target = Cliff(H)
    trace = run(target, Setting("sgld", 0.01), draws=10, burn_in=0, chains=3)
    assert trace.failed.values.tolist() == [[True, False, False]]
    assert np.isfinite(trace.loss.values[0, 0]).tolist() == [True] * 6 + [False] * 4
    assert np.isfinite(trace.loss.values[0, 1:]).all()
    assert np.isfinite(target.w.detach().numpy()).all()


def test_the_same_seeds_give_the_same_trace_and_others_another() -> None:
    first, again = (run(Quadratic(H), Setting("sgld", 0.01), draws=20, groups=2) for _ in range(2))
    np.testing.assert_array_equal(first.loss.values, again.loss.values)
    chains = first.loss.values.reshape(4, -1)
    assert len({tuple(chain) for chain in chains}) == 4


def test_sampling_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run(Quadratic(H), Setting("sgld", 0.01), draws=5)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["sgld", "rmsprop", "sgnht"])
def test_a_minibatch_in_pieces_walks_the_same_path(name: Any) -> None:
    """7 examples of different gradients in pieces of 3, 3 and 1: one mean, one move a step."""
    x = torch.randn(64, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    paths = []
    for microbatch in (None, 3):
        w = torch.nn.Parameter(torch.ones(32, dtype=torch.float64))
        trace = sample(
            Space([w]),
            lambda index_B, w=w: (x[index_B] @ w) ** 2,
            np.zeros(64, np.float32),
            Setting(name, 1e-3, localization=5.0 * (name != "sgnht"), diffusion=0.1),
            Plan(1.0, batch_size=7, groups=1, chains=2, burn_in=5, draws=20, microbatch=microbatch),
            order=lambda group: np.random.default_rng(group).permutation(64),
            noise=lambda group, chain: chain,
            advance=lambda steps=1, note="": None,
        )
        paths.append(trace.loss.values)
    np.testing.assert_allclose(paths[0], paths[1], rtol=1e-9)
    assert paths[0].std() > 0


def test_chains_around_an_anchor_in_4_bits_return_to_it() -> None:
    """The anchor is kept packed, and w* is put back to the bit after every chain."""
    anchor, _ = packed(
        torch.randn(64, 96, generator=torch.Generator().manual_seed(0)), torch.bfloat16
    )
    w = torch.nn.Parameter(anchor.dense())
    trace = sample(
        Space([w], anchors=[anchor]),
        lambda index_B: (w.float() - anchor.dense().float()).square().sum().expand(len(index_B)),
        np.zeros(64, np.float32),
        Setting("sgld", 1e-4, localization=5.0),
        Plan(1.0, batch_size=1, groups=2, chains=2, burn_in=0, draws=8),
        order=lambda group: np.arange(64),
        noise=lambda group, chain: 7 * group + chain,
        advance=lambda steps=1, note="": None,
    )
    assert (trace.loss.isel(draw=0) == 0).all()
    assert (trace.loss.isel(draw=slice(1, None)) > 0.1).all()
    assert torch.equal(w.detach(), anchor.dense())


def test_chains_of_a_group_share_its_order_and_no_example() -> None:
    """init_losses numbered 0…63, 2 chains × 4 steps × 8 examples: each example once, in the group's
    order.
    """
    target, orders = (
        Quadratic(H),
        [np.random.default_rng(group).permutation(64) for group in (0, 1)],
    )
    trace = sample(
        Space([target.w]),
        target,
        np.arange(64, dtype=np.float32),
        Setting("sgld", 0.01),
        Plan(1.0, batch_size=8, groups=2, chains=2, burn_in=1, draws=3),
        order=lambda group: orders[group],
        noise=lambda group, chain: chain,
        advance=lambda steps=1, note="": None,
    )
    for group, order in enumerate(orders):
        np.testing.assert_allclose(
            trace.init_loss.values[group], order.reshape(2, 4, 8).mean(axis=-1)
        )


def test_without_restart_a_chain_goes_on_where_the_last_one_ended() -> None:
    """And takes that for its anchor: with a box of 0.01 the second chain of a group leaves the
    first one's box, and w* is put back.
    """
    target = Quadratic(H, centre=0.7)
    setting = Setting("sgld", 0.01, bounding_box=0.01)
    trace = run(target, setting, groups=2, chains=3, draws=20, burn_in=0, nbeta=0.01, restart=False)
    within = 0.5 * H.sum() * 0.01**2
    assert (trace.loss.isel(chain=0, draw=0) == 0).all()
    assert (trace.loss.isel(chain=1, draw=0) > 0.5 * within).all()
    assert float(trace.loss.isel(chain=2).max()) > within * (1 + 1e-9)
    np.testing.assert_array_equal(target.w.detach().numpy(), np.full(32, 0.7))


def test_a_group_without_restart_is_run_again_as_a_whole() -> None:
    done: dict[tuple[int, int], Chain] = {}
    setting = Setting("sgld", 0.01)
    whole = run(Quadratic(H), setting, draws=20, groups=2, chains=3, done=done, restart=False)
    del done[1, 1]
    resumed = run(Quadratic(H), setting, draws=20, groups=2, chains=3, done=done, restart=False)
    np.testing.assert_array_equal(whole.loss.values, resumed.loss.values)


def test_finished_chains_are_not_run_again() -> None:
    done: dict[tuple[int, int], Chain] = {}
    whole = run(Quadratic(H), Setting("sgld", 0.01), draws=20, groups=2, done=done)
    del done[1, 0]

    class Counting(Quadratic):
        calls = 0

        def __call__(self, index_B: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return super().__call__(index_B)

    target = Counting(H)
    resumed = run(target, Setting("sgld", 0.01), draws=20, groups=2, done=done)
    assert target.calls == 320
    np.testing.assert_array_equal(whole.loss.values, resumed.loss.values)
