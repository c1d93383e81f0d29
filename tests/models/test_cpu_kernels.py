"""The products are those of single precision, by either library; others are torch's as before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from replicate.models import cpu_kernels


@pytest.fixture(autouse=True, params=["oneDNN", "MKL"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "oneDNN" and not cpu_kernels.has_onednn():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(cpu_kernels, "prefers_onednn", lambda: request.param == "oneDNN")
    with cpu_kernels.fast_cpu():
        yield


SIZES = [(1504, 192, 768), (32, 192, 768), (995, 768, 50), (7, 3, 5), (64, 64, 64), (1, 700, 900)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("layout", ["dense", "transposed", "gaps", "broadcast"])
def test_products_agree_with_double_precision(size: tuple[int, int, int], layout: str) -> None:
    m, k, n = size
    generator = torch.Generator().manual_seed(0)

    def matrix(rows: int, columns: int) -> Tensor:
        if layout == "transposed":
            return torch.randn(columns, rows, generator=generator).t()
        if layout == "broadcast":
            return torch.randn(1, columns, generator=generator).expand(rows, columns)
        wide = 3 if layout == "gaps" else 1
        return torch.randn(rows, wide * columns, generator=generator)[:, :columns]

    a, b, bias = matrix(m, k), matrix(k, n), torch.randn(n, generator=generator)
    exact, offset = a.double() @ b.double(), bias.double()
    tolerance = 4e-7 * k**0.5 * float(a.abs().max() * b.abs().max()) * 3
    for found, truth in (
        (torch.mm(a, b), exact),
        (torch.addmm(bias, a, b), exact + offset),
        (torch.addmm(bias, a, b, beta=0.5, alpha=2.0), 2 * exact + 0.5 * offset),
    ):
        torch.testing.assert_close(found.double(), truth, rtol=0, atol=tolerance)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products_in_bfloat16_are_rounded_once(size: tuple[int, int, int]) -> None:
    """The error is half a unit of the last place, and what sums in single precision add to it."""
    m, k, n = size
    generator = torch.Generator().manual_seed(1)
    a, b, bias = (
        torch.randn(shape, generator=generator).bfloat16() for shape in ((m, k), (k, n), (n,))
    )
    exact = a.double() @ b.double()
    for found, truth in ((torch.mm(a, b), exact), (torch.addmm(bias, a, b), exact + bias.double())):
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.double(), truth, rtol=2**-8, atol=4e-6 * k**0.5)


OTHERS = (torch.float64, torch.bfloat16, torch.int64, torch.complex64)


@pytest.mark.parametrize("dtype", [torch.float32, *OTHERS])
@pytest.mark.parametrize(("rows", "inner"), [(100, 100), (0, 4), (3, 0)])
def test_other_types_and_empty_products_are_torchs(
    dtype: torch.dtype, rows: int, inner: int
) -> None:
    found = torch.ones(rows, inner, dtype=dtype) @ torch.ones(inner, 100, dtype=dtype)
    assert torch.equal(found, torch.full((rows, 100), inner, dtype=dtype))


def test_gradients_agree_with_double_precision() -> None:
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(192, 300), torch.randn(500, 192)
    double = torch.nn.Linear(192, 300, dtype=torch.float64)
    double.load_state_dict({name: value.double() for name, value in layer.state_dict().items()})
    layer(x).tanh().sum().backward()
    double(x.double()).tanh().sum().backward()
    assert layer.weight.grad is not None
    assert double.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad.double(), double.weight.grad, rtol=1e-4, atol=1e-3)
