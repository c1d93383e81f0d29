"""Chains start at w*, sample the posterior of their loss, and are the same each time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from replicate.sampling import Chain, SamplerConfig, SamplingConfig, Task, assemble
from replicate.sampling.engine import run_piece
from tests.scenarios import EXAMPLES, Quadratic, packed, quadratic_llc, sampled, seed, silent

H = np.array([0.5, 1.0, 2.0, 4.0] * 8)
NBETA = 20.0
SGLD = SamplerConfig("sgld", 0.01)


def run(target: Quadratic, sampler: SamplerConfig, nbeta: float = NBETA, **sampling: Any) -> Any:
    return sampled(target, [target.w], sampler, nbeta, **sampling)


def llc(target: Quadratic, sampler: SamplerConfig, **sampling: Any) -> float:
    trace = run(target, sampler, **{"burn_in": 300, "draws": 4000} | sampling)
    return NBETA * float(trace.loss.sel(draw=slice(0, None)).mean())


@pytest.mark.parametrize(
    ("localization", "lr", "implementation"),
    [
        (0.0, 0.005, "replicate"),
        (30.0, 0.01, "replicate"),
        (5.0, 0.02, "replicate"),
        (5.0, 0.02, "devinterp"),
    ],
)
def test_sgld_on_a_quadratic_has_the_exact_llc(
    localization: float, lr: float, implementation: str
) -> None:
    """With 32 weights and 8000 draws the Monte-Carlo error is about 1 %; the bias of the large step
    is 12 %.
    """
    sampler = SamplerConfig("sgld", lr, localization=localization)
    found = llc(Quadratic(H), sampler, implementation=implementation)
    assert found == pytest.approx(quadratic_llc(H, NBETA, localization, lr), rel=0.03)


@pytest.mark.parametrize(
    ("pull", "expected", "tolerance"),
    [("weight_decay", 16 * (0.25 + 1 / 40), 0.03), ("localization", 16 / 40, 0.08)],
)
def test_weight_decay_pulls_to_zero_and_localization_to_w_star(
    pull: str, expected: float, tolerance: float
) -> None:
    """Around w* = 1, μ = nβh gives w the mean nβh/(nβh + μ) = ½ and the variance 1/(nβh + μ); γ
    gives it the mean w*.
    """
    given: dict[str, Any] = {pull: 20.0}
    sampler = SamplerConfig("sgld", 0.005, **given)
    found = llc(Quadratic(np.ones(32), centre=1.0), sampler)
    assert found / NBETA == pytest.approx(expected, rel=tolerance)


def test_sgnht_on_a_quadratic_has_half_the_dimension() -> None:
    """A regular model has λ = d/2 = 16."""
    sampler = SamplerConfig("sgnht", 1e-4, diffusion=0.05)
    found = llc(Quadratic(H), sampler, draws=20_000, burn_in=2000, chains=1)
    assert found == pytest.approx(16.0, rel=0.05)


def test_sgnhts_friction_is_that_of_the_weights_that_move() -> None:
    """With half of the weights masked, λ = d/2 = 8; a mean of p² over all weights would heat them
    to twice that.
    """
    sampler, mask = SamplerConfig("sgnht", 1e-4, diffusion=0.05), torch.tensor([1.0, 0.0] * 16)
    found = llc(Quadratic(H), sampler, masks=[mask], draws=20_000, burn_in=2000, chains=1)
    assert found == pytest.approx(8.0, rel=0.05)


@pytest.mark.parametrize(("name", "lr"), [("sgld", 0.01), ("sgnht", 1e-3)])
def test_no_weight_leaves_the_box(name: str, lr: float) -> None:
    """Each of 32 weights stays within 0.05, so the loss is at most ½·Σh·0.05²."""
    sampler = SamplerConfig(name, lr, diffusion=0.1, bounding_box=0.05)
    trace = run(Quadratic(H, centre=1.0), sampler, nbeta=0.01, draws=500)
    assert 0 < float(trace.loss.max()) <= 0.5 * H.sum() * 0.05**2 * (1 + 1e-9)


def test_every_chain_starts_at_w_star_and_leaves_the_model_there() -> None:
    target = Quadratic(H, centre=0.7)
    trace = run(target, SGLD, shuffles=2, draws=10, burn_in=5)
    assert (trace.loss.sel(draw=-5) == 0).all()
    assert (trace.loss.sel(draw=-4) > 0).all()
    np.testing.assert_array_equal(target.w.detach().numpy(), np.full(32, 0.7))


def test_a_chain_that_diverges_has_nan_from_that_step_on_and_spares_the_others() -> None:
    class Cliff(Quadratic):
        calls = 0

        def __call__(self, index_B: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return super().__call__(index_B) * (float("nan") if self.calls == 7 else 1.0)

    target = Cliff(H)
    trace = run(target, SGLD, draws=10, chains=3)
    assert trace.diverged.values.tolist() == [[True, False, False]]
    assert np.isfinite(trace.loss.values[0, 0]).tolist() == [True] * 6 + [False] * 4
    assert np.isfinite(trace.loss.values[0, 1:]).all()
    assert np.isfinite(target.w.detach().numpy()).all()


@pytest.mark.parametrize("implementation", ["replicate", "devinterp"])
def test_the_same_seeds_give_the_same_trace_and_others_another(implementation: str) -> None:
    before = torch.get_rng_state()
    plan = {"shuffles": 2, "implementation": implementation}
    first, again = (run(Quadratic(H), SGLD, **plan) for _ in range(2))
    np.testing.assert_array_equal(first.loss.values, again.loss.values)
    assert len({tuple(chain) for chain in first.loss.values.reshape(4, -1)}) == 4
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("restart", [True, False])
def test_pieces_that_run_alone_in_any_order_give_the_same_chains(restart: bool) -> None:
    whole = run(Quadratic(H), SGLD, shuffles=2, chains=3, restart=restart)
    sampling = SamplingConfig(NBETA, 1, 2, 3, 0, 20, restart)
    pieces = sampling.pieces()
    assert len(pieces) == (6 if restart else 2)
    losses_N = np.zeros(EXAMPLES, np.float32)
    chains: dict[tuple[int, int], Chain] = {}

    def order(shuffle: int) -> np.ndarray:
        return np.random.default_rng(shuffle).permutation(EXAMPLES)

    for piece in reversed(pieces):
        target = Quadratic(H)
        task = Task(target, [target.w])
        chains |= run_piece(
            task, SGLD, sampling, piece, losses_N, order=order, noise=seed, advance=silent
        )
    xr.testing.assert_equal(
        whole.drop_vars("seconds"), assemble(sampling, chains).drop_vars("seconds")
    )


def test_without_restart_a_chain_goes_on_where_the_last_one_ended() -> None:
    """It is also anchored there: with a box of 0.01 the second chain leaves the first one's box."""
    target = Quadratic(H, centre=0.7)
    sampler = SamplerConfig("sgld", 0.01, bounding_box=0.01)
    trace = run(target, sampler, shuffles=2, chains=3, nbeta=0.01, restart=False)
    within = 0.5 * H.sum() * 0.01**2
    assert (trace.loss.isel(chain=0, draw=0) == 0).all()
    assert (trace.loss.isel(chain=1, draw=0) > 0.5 * within).all()
    assert float(trace.loss.isel(chain=2).max()) > within * (1 + 1e-9)
    np.testing.assert_array_equal(target.w.detach().numpy(), np.full(32, 0.7))


def test_chains_of_a_shuffle_share_its_order_and_no_example() -> None:
    """With losses 0…63 at w*, 2 chains × 4 steps × 8 examples use each example once, in order."""
    orders = [np.random.default_rng(s + 5).permutation(EXAMPLES) for s in (0, 1)]
    losses = np.arange(EXAMPLES, dtype=np.float32)
    given = {"order": orders.__getitem__, "init_losses": losses}
    trace = run(Quadratic(H), SGLD, shuffles=2, draws=4, batch_size=8, **given)
    for init_losses, order in zip(trace.init_loss.values, orders, strict=True):
        np.testing.assert_allclose(init_losses, order.reshape(2, 4, 8).mean(axis=-1))


@pytest.mark.parametrize("name", ["sgld", "rmsprop", "sgnht", "leimkuhler"])
def test_microbatches_give_the_path_of_the_whole_batch(name: str) -> None:
    """7 examples of different gradients, 3, 3 and 1 at a time."""
    x = torch.randn(EXAMPLES, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sampler = SamplerConfig(name, 1e-3, localization=5.0 * (name != "sgnht"), diffusion=0.1)
    paths = []
    for microbatch_size in (None, 3):
        w = torch.nn.Parameter(torch.ones(32, dtype=torch.float64))
        size = {"batch_size": 7, "microbatch_size": microbatch_size}
        trace = sampled(lambda i, w=w: (x[i] @ w) ** 2, [w], sampler, 1.0, burn_in=5, **size)
        paths.append(trace.loss.values)
    np.testing.assert_allclose(paths[0], paths[1], rtol=1e-9)
    assert paths[0].std() > 0


def test_chains_around_an_anchor_in_4_bits_return_to_it() -> None:
    """The anchor stays packed, and w* is the same to the bit after every chain."""
    values = torch.randn(64, 96, generator=torch.Generator().manual_seed(0))
    anchor, _ = packed(values, torch.bfloat16)
    w, sampler = torch.nn.Parameter(anchor.dense()), SamplerConfig("sgld", 1e-4, localization=5.0)

    def loss(index_B: torch.Tensor) -> torch.Tensor:
        return (w.float() - anchor.dense().float()).square().sum().expand(len(index_B))

    trace = sampled(loss, [w], sampler, 1.0, anchors=[anchor], shuffles=2, draws=8)
    assert (trace.loss.isel(draw=0) == 0).all()
    assert (trace.loss.isel(draw=slice(1, None)) > 0.1).all()
    assert torch.equal(w.detach(), anchor.dense())
