"""Does the local learning coefficient of a language model grow with its size? A replication.

    from replicate import llc

    estimate = llc(model, tokens)  # N windows of L tokens
    print(estimate)

The public names are `llc`, `curve`, `curvature`, `sample`, `sample_text`, `baseline`, `calibrate`,
`Estimate`, `fast_cpu`, the samplers `SGLD`, `SGNHT`, `RMSpropSGLD` and `LeimkuhlerMatthews`, and
the modules `estimators`, `diagnostics` and `targets`. Each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from replicate.api import baseline, calibrate, sample, sample_text
    from replicate.estimating import curve, llc
    from replicate.estimation import diagnostics, estimators
    from replicate.estimation.estimate import Estimate
    from replicate.models.cpu_kernels import fast_cpu
    from replicate.models.curvature import curvature
    from replicate.sampling.samplers.leimkuhler import LeimkuhlerMatthews
    from replicate.sampling.samplers.rmsprop import RMSpropSGLD
    from replicate.sampling.samplers.sgld import SGLD
    from replicate.sampling.samplers.sgnht import SGNHT
    from replicate.validation import targets

__version__ = "0.1.0"
__all__ = [
    "SGLD",
    "SGNHT",
    "Estimate",
    "LeimkuhlerMatthews",
    "RMSpropSGLD",
    "baseline",
    "calibrate",
    "curvature",
    "curve",
    "diagnostics",
    "estimators",
    "fast_cpu",
    "llc",
    "sample",
    "sample_text",
    "targets",
]
_PLACES = {
    "Estimate": "estimation.estimate",
    "LeimkuhlerMatthews": "sampling.samplers.leimkuhler",
    "RMSpropSGLD": "sampling.samplers.rmsprop",
    "SGLD": "sampling.samplers.sgld",
    "SGNHT": "sampling.samplers.sgnht",
    "curve": "estimating",
    "curvature": "models.curvature",
    "diagnostics": "estimation",
    "estimators": "estimation",
    "fast_cpu": "models.cpu_kernels",
    "llc": "estimating",
    "targets": "validation",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = import_module(f"{__name__}.{_PLACES.get(name, 'api')}")
    if hasattr(place, name):
        return getattr(place, name)
    return import_module(f"{place.__name__}.{name}")
