"""The least time that a step of a chain could take on this machine: what must be computed and
moved, at the best rates that the machine shows.

Floating-point operations of the last token's loss, for a minibatch of B windows of P = L − 1
tokens, width d, n blocks, V tokens in the vocabulary. A block has M = m·d² weights in matrices (m =
12 in GPT-2: 3 for queries, keys and values, 1 for the attention's output, 8 for the MLP; m = 13 in
Llama as built here, with 9), each of which a position multiplies and adds, and attention does so
twice over the d entries of each pair of positions, of which a causal model has P(P + 1)/2:

    block      = 2·P·M + 4·d·P(P + 1)/2
    last block = 2·P·2d² + 2·(M − 2d²) + 4·d·P      keys and values at all positions, everything
                                                    else at the last
    head       = 2·d·V                              at the last position
    forward    = B·[(n − 1)·block + last block + head]
    needed     = 3·forward                          backward, a product for each factor's gradient

Bytes, for N weights of s = 4 bytes: the weights read in the forward and in the backward pass, and
an update that reads weight, gradient and anchor and writes weight and gradient:

    moved = (2 + 5)·s·N

    limit = needed / matrix rate + moved / memory rate

The matrix rate is the best of torch's product and oneDNN's over the shapes of all works, the memory
rate that of a copy too large for any cache, read and write counted, both with all threads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import click
import torch

from benchmarks.work import WORKS, Work, device, parameters

MLP = {"gpt2": 8, "llama": 9}  # weights in matrices, in d²
SIZE = 4  # bytes of a weight
COPIED = 2**27  # numbers in the large copy
REPEATED = 0.15  # seconds for which each product is repeated


@dataclass(frozen=True)
class Rates:
    """matrix: floating-point operations per second. memory: bytes per second."""

    matrix: float
    memory: float


def forward(work: Work, *, whole: bool = False) -> int:
    """Counts the floating-point operations of a minibatch's forward pass in matrix products.

    Args:
        whole: whether to count what a model does that computes the logits of every position and the
            scores of every pair; if not, what is needed for the label.
    """
    P, d = work.length - 1, work.width
    weights = (4 + MLP[work.architecture]) * d * d
    block = 2 * P * weights + 4 * d * (P * P if whole else P * (P + 1) // 2)
    last = block if whole else 2 * P * 2 * d * d + 2 * (weights - 2 * d * d) + 4 * d * P
    head = 2 * d * work.vocabulary * (P if whole else 1)
    return work.batch * ((work.layers - 1) * block + last + head)


def needed(work: Work) -> int:
    """Counts the floating-point operations of a step."""
    return 3 * forward(work)


def moved(work: Work) -> int:
    """Counts the bytes that a step moves."""
    return 7 * SIZE * parameters(work)


def limit(work: Work, rates: Rates) -> float:
    """Returns the least seconds of a step."""
    return needed(work) / rates.matrix + moved(work) / rates.memory


def measure(dtype: torch.dtype) -> Rates:
    """Measures the rates of this machine, by the products of the works that can run here."""
    here = [work for work in WORKS.values() if not work.cuda or torch.cuda.is_available()]
    shapes = {shape for work in here for shape in products(work)}
    return Rates(max(matrix_rate(*shape, dtype) for shape in shapes), memory_rate())


def products(work: Work) -> list[tuple[int, int, int]]:
    """Returns (rows, in, out) of a block's larger products."""
    rows, d = work.batch * (work.length - 1), work.width
    return [(rows, d, 3 * d), (rows, d, 4 * d), (rows, 4 * d, d)]


def matrix_rate(rows: int, inner: int, outer: int, dtype: torch.dtype) -> float:
    x, w = (
        torch.randn(rows, inner, device=device(), dtype=dtype),
        torch.randn(outer, inner, device=device(), dtype=dtype),
    )
    calls: list[Callable[[], object]] = [lambda: torch.mm(x, w.t())]
    onednn = x.device.type == "cpu" and torch.backends.mkldnn.is_available()
    if onednn and (dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        # oneDNN, which is twice MKL where the processor is AMD's.
        calls.append(lambda: torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], ""))
    return 2 * rows * inner * outer / min(fastest(call) for call in calls)


def memory_rate() -> float:
    source = torch.ones(COPIED, device=device())
    target = torch.empty_like(source)
    return 2 * source.nbytes / fastest(lambda: target.copy_(source))


def fastest(call: Callable[[], object]) -> float:
    """Returns the seconds of the fastest of some calls."""
    call()
    best, end = float("inf"), time.perf_counter() + REPEATED
    while best == float("inf") or time.perf_counter() < end:
        synchronise()
        start = time.perf_counter()
        call()
        synchronise()
        best = min(best, time.perf_counter() - start)
    return best


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@click.command
@click.argument("dtype", type=click.Choice(["float32", "bfloat16"]), default="float32")
def main(dtype: str) -> None:
    """Prints this machine's rates as JSON."""
    print(json.dumps(asdict(measure(getattr(torch, dtype)))))


if __name__ == "__main__":
    main()
