"""Derives every other seed of a study from its one seed and from names or numbers."""

import hashlib
from operator import index
from typing import Any

from replicate.errors import ArgumentError


def whole(seed: Any) -> int:
    """Returns a seed that a caller gave, which may be of any type of whole numbers.

    Raises:
        ArgumentError: it is no whole number, such as 1.0, whose seeds are not those of 1.
    """
    try:
        found = None if isinstance(seed, bool) else index(seed)
    except TypeError:
        found = None
    if found is None:
        raise ArgumentError(f"seed = {seed!r}: must be a whole number")
    return found


def derive(seed: int, *names: str | int) -> int:
    """Returns a seed in [0, 2⁶³) that depends on `seed` and `names` alone.

    Different names give independent seeds.
    """
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
