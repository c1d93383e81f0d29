"""One seed in params.yaml; every other is derived from it by name."""

import hashlib


def derive(seed: int, *names: str | int) -> int:
    """A seed in [0, 2⁶³) for the thing so named; different names give independent seeds."""
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
