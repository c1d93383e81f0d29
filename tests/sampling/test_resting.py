"""Work that was interrupted and goes on ends in the same bits as work that was not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from replicate.models import loading as models
from replicate.models import training as pretrain
from replicate.sampling import Plan, Setting, Space, assemble, walk
from replicate.sampling.engine import CHUNK, Chain

SETTINGS = {
    "sgld": Setting("sgld", 1e-2, localization=1.0, bounding_box=0.5),
    "rmsprop": Setting("rmsprop", 1e-2, localization=1.0),
    "sgnht": Setting("sgnht", 1e-3, diffusion=0.1, bounding_box=0.5),
}


class PowerError(Exception):
    """It goes out."""


class Place:
    """Keeps what is offered the `allowed`-th time, and then the power goes out."""

    def __init__(self, allowed: float = float("inf")) -> None:
        self.allowed, self.offers = allowed, 0
        self.state: dict[str, Tensor] | None = None

    def load(self) -> dict[str, Tensor] | None:
        return self.state

    def offer(self, state: Callable[[], Mapping[str, Tensor]]) -> None:
        self.offers += 1
        if self.offers == self.allowed:
            self.state = {name: tensor.detach().clone() for name, tensor in state().items()}
            raise PowerError

    def drop(self) -> None:
        self.state = None


def advance(steps: int = 1, note: str = "") -> None: ...


def chains(
    setting: Setting,
    plan: Plan,
    dtype: torch.dtype,
    place: Place,
    done: dict[tuple[int, int], Chain],
) -> None:
    """Linear regression with noise, from weights that are no minimum, so that everything moves."""
    generator = torch.Generator().manual_seed(1)
    x_NxD, y_N = (
        torch.randn(64, 5000, generator=generator) / 70,
        torch.randn(64, generator=generator),
    )
    weight = nn.Parameter((0.01 * torch.randn(5000, generator=generator)).to(dtype))
    walk(
        Space([weight]),
        lambda index: (x_NxD[index] @ weight.float() - y_N[index]) ** 2,
        np.zeros(64, np.float32),
        setting,
        plan,
        plan.missing(done),
        order=lambda group: np.random.default_rng(group).permutation(64),
        noise=lambda group, chain: 100 * group + chain,
        advance=advance,
        done=done,
        rest=lambda key: place,
    )


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sampler", SETTINGS)
def test_a_chain_goes_on_to_the_same_bits(sampler: str, dtype: torch.dtype, restart: bool) -> None:
    """Wherever it was interrupted; also where a chain starts from the end of the one before."""
    plan = Plan(5.0, 4, groups=1, chains=2, burn_in=2 * CHUNK, draws=2 * CHUNK, restart=restart)
    whole: dict[tuple[int, int], Chain] = {}
    chains(SETTINGS[sampler], plan, dtype, Place(), whole)
    expected = assemble(plan, whole).loss
    assert np.isfinite(expected).all()
    assert float(expected.std()) > 0
    for allowed in range(1, 8):
        done: dict[tuple[int, int], Chain] = {}
        place = Place(allowed)
        with pytest.raises(PowerError):
            chains(SETTINGS[sampler], plan, dtype, place, done)
        place.allowed = float("inf")
        chains(SETTINGS[sampler], plan, dtype, place, done)
        assert place.state is None
        np.testing.assert_array_equal(
            assemble(plan, done).loss, expected, err_msg=f"interrupted at {allowed}"
        )


def test_a_chain_that_rested_is_not_begun_anew() -> None:
    plan = Plan(5.0, 4, groups=1, chains=1, burn_in=0, draws=4 * CHUNK)
    place, taken = Place(3), Place()
    with pytest.raises(PowerError):
        chains(SETTINGS["sgld"], plan, torch.float32, place, {})
    taken.state = place.state
    chains(SETTINGS["sgld"], plan, torch.float32, taken, {})
    assert taken.offers == 1


def test_a_lost_chain_of_a_group_that_goes_on_is_computed_again() -> None:
    """The place of the second chain is of no use without the first."""
    plan = Plan(5.0, 4, groups=1, chains=2, burn_in=0, draws=2 * CHUNK, restart=False)
    whole: dict[tuple[int, int], Chain] = {}
    chains(SETTINGS["sgld"], plan, torch.float32, Place(), whole)
    place = Place(3)
    with pytest.raises(PowerError):
        chains(SETTINGS["sgld"], plan, torch.float32, place, {})
    done: dict[tuple[int, int], Chain] = {}
    place.allowed = float("inf")
    chains(SETTINGS["sgld"], plan, torch.float32, place, done)
    np.testing.assert_array_equal(assemble(plan, done).loss, assemble(plan, whole).loss)


@pytest.mark.parametrize("interrupted", [3, 17, 24, 31])
def test_a_training_goes_on_to_the_same_bits(interrupted: int) -> None:
    """In the warm-up, in the second epoch, and in the descent."""
    schedule = pretrain.Schedule(
        lr=1e-2, batch_size=8, warmup=5, check=6, tolerance=1e-9, descent=0.3, steps=32
    )
    tokens_NxL = torch.randint(0, 40, (64, 12), generator=torch.Generator().manual_seed(0))

    def train(place: Place) -> tuple[pretrain.Outcome, list[Tensor]]:
        torch.manual_seed(3)
        model = models.build("gpt2", layers=1, width=16, heads=2, vocabulary=40, length=12)
        outcome = pretrain.train(
            model, tokens_NxL, schedule, torch.Generator().manual_seed(4), advance, place
        )
        return outcome, list(model.parameters())

    expected, weights = train(Place())
    place = Place(interrupted)
    with pytest.raises(PowerError):
        train(place)
    place.allowed = float("inf")
    outcome, resumed = train(place)
    assert outcome == expected
    assert place.offers == expected.steps
    for a, b in zip(weights, resumed, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
