"""Seeds by name: a study has one seed, and every other seed is derived from it."""

import hashlib


def derive(seed: int, *names: str | int) -> int:
    """Returns a seed in [0, 2⁶³) for what the names name; other names give independent seeds."""
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
