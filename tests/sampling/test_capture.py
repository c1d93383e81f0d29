"""Steps that a GPU repeats as graphs are those that the host would take, and no step waits for it.

A tape stands in for a graph. As a graph does, it repeats operations on the memory of the first time
and knows nothing of the host. Unlike a graph, it also does them while it records them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from replicate.sampling import SamplerConfig, capture, steps
from replicate.sampling.samplers import sampler
from tests.scenarios import EXAMPLES, packed, sampled

LENGTH = 96
CONFIGS = [
    SamplerConfig("sgld", 1e-4, localization=100.0, weight_decay=0.1, bounding_box=0.05),
    SamplerConfig("leimkuhler", 1e-4, localization=100.0),
    SamplerConfig("rmsprop", 1e-4, localization=100.0),
    SamplerConfig("sgnht", 1e-6, diffusion=0.05),
]
by_sampler = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.sampler)


class Tape(TorchDispatchMode):
    """Records operations while they are done, and repeats them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []
        self.done = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, found))
        return found

    @torch.no_grad()
    def replay(self) -> None:
        """Repeats the operations; the first time they are done already."""
        for func, args, kwargs, found in self.calls if self.done else ():
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(found), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)
        self.done = True


def regression(
    config: SamplerConfig,
    dtype: torch.dtype,
    anchored: bool,
    microbatch_size: int | None,
    repeated: bool,
) -> xr.Dataset:
    """Chains of a linear regression with a matrix and a vector of weights."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(EXAMPLES, 8, generator=generator)
    anchor, values = packed(torch.randn(8, 64, generator=generator), dtype)
    w, b = nn.Parameter(values), nn.Parameter(torch.zeros(64, dtype=dtype))

    def loss(i: Tensor) -> Tensor:
        return (x[i] @ w.float() + b.float()).square().mean(dim=1)

    anchors = [anchor, None] if anchored else ()
    size: dict[str, Any] = {"batch_size": 6, "burn_in": 4, "draws": LENGTH - 4, "chains": 1}
    size |= {"microbatch_size": microbatch_size, "repeated": repeated}
    return sampled(loss, [w, b], config, 30.0, anchors=anchors, **size)


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicate.sampling.samplers.base.has_cpu_kernel", lambda _: False)


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch, by_torch: None) -> list[Tape]:
    made: list[Tape] = []

    def captured(
        work: capture.Work, given: Tensor, pool: object
    ) -> tuple[Callable[[], None], capture.Found]:
        made.append(Tape())
        with made[-1]:
            found = work(given)
        return made[-1].replay, found

    monkeypatch.setattr(capture, "captured", captured)
    monkeypatch.setattr(capture, "stream", nullcontext)
    return made


@by_sampler
@pytest.mark.parametrize("microbatch_size", [None, 2])
@pytest.mark.parametrize(
    ("dtype", "anchored"),
    [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)],
    ids=["float32", "bfloat16", "nf4"],
)
def test_a_repeated_step_is_the_step(
    config: SamplerConfig,
    dtype: torch.dtype,
    anchored: bool,
    microbatch_size: int | None,
    tapes: list[Tape],
) -> None:
    plain = regression(config, dtype, anchored, microbatch_size, repeated=False)
    assert not tapes
    again = regression(config, dtype, anchored, microbatch_size, repeated=True)
    assert [tape.done for tape in tapes] == [True, True]  # of a whole minibatch, and of two halves
    assert (plain.loss.std("draw") > 0).all()
    xr.testing.assert_equal(again.drop_vars("seconds"), plain.drop_vars("seconds"))


def test_what_the_loss_takes_from_the_host_is_not_repeated(tapes: list[Tape]) -> None:
    """So the test above can fail."""
    w, steps = nn.Parameter(torch.zeros(5)), count()

    def loss(index_B: Tensor) -> Tensor:
        return 0 * w.square().sum() + torch.full((len(index_B),), float(next(steps)))

    found = sampled(loss, [w], CONFIGS[0], 1.0, draws=LENGTH, chains=1, repeated=True)
    assert float(found.loss.max()) < LENGTH / 2
    assert len(tapes) == 1


class Waits(TorchDispatchMode):
    """Counts the operations in which the host waits for a device, for which `meta` stands in."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        sources = {leaf.device for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        target = torch.device(kwargs.get("device") or "meta")
        away = bool(sources) and "device" in kwargs and sources != {target}
        if len(sources) > 1 or away or func is torch.ops.aten._local_scalar_dense.default:
            self.found.append(str(func))
        if away and target.type == "cpu":
            args = tree_map_only(
                Tensor, lambda each: torch.zeros(each.shape, dtype=each.dtype), args
            )
        return func(*args, **kwargs)


@by_sampler
def test_the_host_waits_for_the_device_once_a_chunk(config: SamplerConfig, by_torch: None) -> None:
    w = [
        nn.Parameter(torch.zeros(8, 3, device="meta")),
        nn.Parameter(torch.zeros(3, device="meta")),
    ]
    x = torch.zeros(EXAMPLES, 8, device="meta")
    anchor = [each.detach().clone() for each in w]
    found: list[list[str]] = []
    for chunks in (2, 5):
        moving, waits = sampler(w, anchor, config, nbeta=30.0, seed=1, burn_in=1), Waits()
        moving.noise_step += 1  # the burn-in is over
        with waits, moving.attached():
            steps.run_chains(
                lambda index_CxB: (x[index_CxB[0]] @ w[0] + w[1]).square().mean(dim=1)[None],
                moving.slope,
                [moving],
                np.zeros((chunks * steps.CHUNK, 1, 6), np.int64),
                None,
                torch.device("meta"),
                lambda steps=1, note="": None,
            )
        found.append(waits.found)
    assert found[0]
    assert found[1] == found[0] + 3 * ["aten._to_copy.default"]
