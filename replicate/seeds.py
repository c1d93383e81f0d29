"""Derives every other seed of a study from its one seed and from names or numbers."""

import hashlib


def derive(seed: int, *names: str | int) -> int:
    """Returns a seed in [0, 2⁶³) that depends on `seed` and `names` alone.

    Different names give independent seeds.
    """
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
