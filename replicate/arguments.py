"""Checks what a caller gives for numbers and samplers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from replicate.errors import ArgumentError
from replicate.sampling import SamplerConfig
from replicate.sampling.samplers import SAMPLERS, Sampler

COUNTS = ("shuffles", "chains", "burn_in", "draws", "batch_size", "microbatch_size")
COUNTS += ("windows", "length", "budget", "evaluated")
MOST = 10**9  # steps of all chains together, whose losses stay in memory
POSITIVE = ("bounding_box", "diffusion")  # other knobs may be 0
DIFFUSION = 0.01  # the default A of SGNHT, as in devinterp


def require(*, least: float | None = None, **values: float) -> None:
    """Checks that numbers are above 0, or not below `least`, and that counts are whole.

    Raises:
        ArgumentError: a value is not such a number.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise ArgumentError(f"{name} = {value!r}: must be a number")
        if name in COUNTS and not isinstance(value, int | np.integer):
            raise ArgumentError(f"{name} = {value}: must be a whole number")
        if not math.isfinite(value):
            raise ArgumentError(f"{name} = {value}: must be finite")
        if least is None and not value > 0:
            raise ArgumentError(f"{name} = {value}: must be above 0")
        if least is not None and not value >= least:
            raise ArgumentError(f"{name} = {value}: must not be below {least:g}")


def total(shuffles: int, chains: int, steps: int = 1) -> None:
    """Checks that the steps of all chains can be held in memory.

    Raises:
        ArgumentError: there are more than `MOST`.
    """
    if (found := shuffles * chains * steps) > MOST:
        said = f"{shuffles} × {chains} chains of {steps} steps: {found:.2g} steps"
        raise ArgumentError(f"{said} do not fit into memory; lower shuffles, chains or draws")


def batch(size: int | None, microbatch_size: int | None, examples: int) -> int:
    """Returns the number of examples in a minibatch: `size`, or 32, or all if there are fewer.

    Raises:
        ArgumentError: `size` or `microbatch_size` is not a number of examples.
    """
    found = min(32, examples) if size is None else size
    require(batch_size=found, microbatch_size=found if microbatch_size is None else microbatch_size)
    if found > examples:
        raise ArgumentError(f"batch_size = {found}: there are {examples} examples; lower it")
    return int(found)


def config(
    sampler: type[Sampler] | str, lr: float, localization: float, knobs: dict[str, Any]
) -> SamplerConfig:
    """Returns the configuration of a sampler, which is a class or its name.

    Raises:
        ArgumentError: the sampler is unknown, or takes no such hyperparameter.
    """
    name = next((n for n, kind in SAMPLERS.items() if sampler in (n, kind, kind.__name__)), None)
    if name is None:
        known = ", ".join(kind.__name__ for kind in SAMPLERS.values())
        raise ArgumentError(f"sampler = {sampler!r}: there are {known}")
    kind, allowed = SAMPLERS[name].__name__, set(SAMPLERS[name].knobs)
    if localization and "localization" not in allowed:
        raise ArgumentError(f"localization = {localization}: {kind} has none; give 0")
    allowed -= {"localization"}
    if unknown := sorted(set(knobs) - allowed):
        raise ArgumentError(f"{unknown[0]}: {kind} has no such argument; it has {sorted(allowed)}")
    if not isinstance(stationary := knobs.get("stationary", False), bool):
        raise ArgumentError(f"stationary = {stationary!r}: must be True or False")
    numbers = {knob: value for knob, value in knobs.items() if knob != "stationary"}
    require(**{knob: value for knob, value in numbers.items() if knob in POSITIVE})
    require(least=0, **{knob: value for knob, value in numbers.items() if knob not in POSITIVE})
    given: dict[str, Any] = {"diffusion": DIFFUSION} if "diffusion" in allowed else {}
    given |= knobs | {knob: float(value) for knob, value in numbers.items()}
    return SamplerConfig(name, float(lr), localization=float(localization), **given)
