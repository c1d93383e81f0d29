"""The original study's figures, as data (published.yaml)."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter


class Published(BaseModel):
    """λ̂ of one model: mean and standard deviation across chains of each shuffle, and the average over positive means that was reported."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parameters: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    reported: float


@cache
def figures() -> dict[str, dict[str, Published]]:
    """Family → model → its figures."""
    text = files("replicate").joinpath("published.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, dict[str, Published]]).validate_python(yaml.safe_load(text))
