"""GELU in one pass is torch's, in value and slope."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from replicate.models.gelu import gelu


@pytest.mark.parametrize("shape", [(1,), (3, 1000), (4, 7, 513)])
def test_value_and_slope_are_those_of_double_precision(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (4 * torch.randn(shape, generator=generator)).requires_grad_()
    exact = x.detach().double().requires_grad_()
    weight = torch.randn(shape, generator=generator)
    found, truth = gelu(x), functional.gelu(exact, approximate="tanh")
    torch.testing.assert_close(found.double(), truth, rtol=1e-6, atol=1e-6)
    (slope,) = torch.autograd.grad((found * weight).sum(), x)
    (true_slope,) = torch.autograd.grad((truth * weight.double()).sum(), exact)
    torch.testing.assert_close(slope.double(), true_slope, rtol=1e-5, atol=5e-6)


def test_the_ends_and_what_is_not_a_number() -> None:
    x = torch.tensor([-1e4, -90.0, 0.0, 90.0, 1e4, float("nan"), float("inf")])
    found = gelu(x)
    assert found[:5].tolist() == pytest.approx([0.0, 0.0, 0.0, 90.0, 1e4], abs=1e-30)
    assert found[5].isnan()
    assert found[6] == float("inf")
