"""Devices that a plan may be made for without being there: their makers' figures, and the shares of
them that are reckoned with.
"""

from __future__ import annotations

from dataclasses import dataclass

PRODUCTS = 0.4  # of the peak operations a second
MEMORY = 0.7  # of the peak bandwidth


@dataclass(frozen=True)
class Device:
    """memory: bytes. brief, single: operations a second in bfloat16 and in float32 (no TF32).
    bandwidth: bytes a second.
    """

    memory: float
    brief: float
    single: float
    bandwidth: float

    def seconds(self, operations: float, moved: float, products: str) -> float:
        """Of a step, or of a forward pass."""
        peak = self.brief if products == "bfloat16" else self.single
        return operations / (PRODUCTS * peak) + moved / (MEMORY * self.bandwidth)


DEVICES = {
    "h200": Device(141e9, 989e12, 67e12, 4.8e12),
    "h100": Device(80e9, 989e12, 67e12, 3.35e12),
    "a100-80gb": Device(80e9, 312e12, 19.5e12, 2.04e12),
    "a100-40gb": Device(40e9, 312e12, 19.5e12, 1.56e12),
    "l40s": Device(48e9, 362e12, 91.6e12, 0.864e12),
    "rtx-4090": Device(24e9, 165e12, 82.6e12, 1.01e12),
    "rtx-3090": Device(24e9, 71e12, 35.6e12, 0.936e12),
}
