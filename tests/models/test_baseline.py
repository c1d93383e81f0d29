"""The examination of w*: losses, the gradient from two halves, and steps along it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from replicate.models import baseline, task
from replicate.models.config import work
from replicate.models.task import TextTask
from replicate.progress import silent
from replicate.sampling import curvature
from tests.models.small_task import build, save_windows, task_config
from tests.pipeline.small import told

N = 24
HALVES = np.arange(16)  # the examples of the gradient


@pytest.fixture(params=["all", "embed", "l0h0"])
def found(tmp_path: Path, request: pytest.FixtureRequest) -> TextTask:
    """A task of random weights, of which all or some move."""
    tokens_NxL = np.random.default_rng(0).integers(0, 12, (N, 9), dtype=np.int32)
    save_windows(tmp_path, tokens_NxL)
    build().save_pretrained(tmp_path / "model")
    return task.load(task_config(tmp_path, restriction=(request.param,)))


def gradient(found: TextTask, index_B: np.ndarray) -> torch.Tensor:
    """Returns the gradient of a mean loss with respect to what moves, as one vector."""
    found.model.zero_grad()
    found.loss(torch.from_numpy(index_B)).mean().backward()
    pairs = zip(found.parameters, found.masks, strict=True)
    return torch.cat([baseline.gradient(*pair).flatten().double() for pair in pairs])


def test_a_baseline_is_what_one_pass_over_all_examples_gives(found: TextTask) -> None:
    """Whatever the batches are, and of a restriction only what moves counts."""
    before = [parameter.detach().clone() for parameter in found.parameters]
    done: list[int] = []

    def advance(steps: int = 1, note: str = "") -> None:
        done.append(steps)

    losses_N, report = baseline.examine(found, HALVES, 7, 3, advance)
    with torch.no_grad():
        exact_N = found.loss(torch.arange(N)).numpy()
    np.testing.assert_allclose(losses_N, exact_N, rtol=1e-5)
    assert report["loss"] == pytest.approx(exact_N.mean(), rel=1e-5)
    assert report["standard_error"] == pytest.approx(exact_N.std() / N**0.5, rel=1e-5)
    first, second = gradient(found, HALVES[:8]), gradient(found, HALVES[8:])
    whole = gradient(found, HALVES)
    assert report["gradient_norm"] == pytest.approx(float(whole.norm()), rel=1e-5)
    assert report["gradient_norm_squared"] == pytest.approx(float(first @ second), rel=1e-4)
    assert report["sampled_parameters"] == sum(found.sizes)
    assert sum(done) == work(N, len(HALVES))
    torch.testing.assert_close(list(found.parameters), before, rtol=0, atol=0)


def test_a_step_along_the_gradient_lowers_the_loss_of_random_weights(found: TextTask) -> None:
    """By what the gradient promises, if the step is short: the loss is linear near w*."""
    first, other = gradient(found, HALVES[:8]), gradient(found, HALVES[8:])
    parts = first.float().split([parameter.numel() for parameter in found.parameters])
    direction = [g.view_as(p) for g, p in zip(parts, found.parameters, strict=True)]
    losses_N = baseline.losses(found, np.arange(N), N, silent)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(baseline, "PROMISED", (1e-4,))
        fall, error = baseline.descent(found, direction, HALVES[8:], losses_N, 4, silent)
    assert fall == pytest.approx(1e-4 * float(first @ other / (first @ first)), rel=0.05, abs=1e-6)
    assert error > 0


def test_the_hessian_in_a_report_gives_the_harmonic_part_at_any_resolution(found: TextTask) -> None:
    report = baseline.hessian(found, HALVES, 12, 2, 3, 5, 1, silent)
    for part, examples in ((report, 12), (report["quarter"], 3)):
        settings: dict[str, Any] = {"batch_size": 4, "probes": 2, "products": 3, "seed": 1}
        index_N = torch.from_numpy(HALVES[:examples])
        direct = curvature.spectrum(found, index_N, advance=silent, **settings)
        read = curvature.Spectrum(
            np.array(part["values_PxK"]), np.array(part["weights_PxK"]), part["size"], examples
        )
        alpha = 1 + max(0.0, -direct.lowest)
        assert read.harmonic(alpha) == pytest.approx(direct.harmonic(alpha), rel=1e-3)
        assert part["trace"] == pytest.approx(direct.trace[0], rel=1e-3)
        assert (part["lowest"], part["highest"]) == pytest.approx((direct.lowest, direct.highest))


@pytest.mark.fault("A1")
def test_a_loss_that_is_not_finite_is_told(found: TextTask) -> None:
    """Finite weights may overflow."""
    with torch.no_grad():
        found.model.get_parameter("transformer.wte.weight").mul_(1e38)
    told(lambda: baseline.examine(found, HALVES, 7, 3, silent), "small: the loss at w* is")
