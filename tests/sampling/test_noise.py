"""The noise is Philox's and Gaussian, and depends on its place alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy import stats

from replicate.sampling import noise
from tests.scenarios import filled


def words(digits: str) -> list[int]:
    """Reads hexadecimal digits as words of 32 bits."""
    return [int(digits[i : i + 8], 16) for i in range(0, len(digits), 8)]


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("0" * 48, "6627e8d5e169c58dbc57ac4c9b00dbd8"),
        ("f" * 48, "408f276d41c83b0ea20bc7c66d5451fd"),
        ("243f6a8885a308d313198a2e03707344a4093822299f31d0", "d16cfe0994fdcceb5001e42024126ea1"),
    ],
)
def test_philox_gives_the_published_answers(given: str, answer: str) -> None:
    """Of Random123's table of known answers, philox4x32 with 10 rounds: four words of the counter
    and two of the key.
    """
    c0, c1, c2, c3, k0, k1 = (torch.tensor([word]) for word in words(given))
    assert [int(word) for word in noise.philox((c0, c1, c2, c3), (k0, k1))] == words(answer)


def test_both_implementations_agree_in_every_number() -> None:
    """torch's logarithm, cosine and sine against ours: 2¹⁸ normals, the tails among them. A seed of
    63 bits.
    """
    seed = 2**63 - 12345
    found, reference = filled(2**18, seed), noise.normal(2**18, noise.placed(seed, 3, 2)).numpy()
    np.testing.assert_allclose(found, reference, rtol=2e-5, atol=2e-6)
    assert np.abs(reference).max() > 4


def test_it_is_standard_normal_to_the_tails_and_independent() -> None:
    x = filled(2**22).astype(np.float64)
    assert stats.kstest(x, "norm").pvalue > 1e-3
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        spread = np.sqrt(stats.norm.moment(2 * power) - moment**2)
        assert abs((x**power).mean() - moment) < 4 * spread / np.sqrt(x.size), power
    beyond = (np.abs(x) > 4).sum()
    assert stats.binomtest(int(beyond), x.size, float(2 * stats.norm.sf(4))).pvalue > 1e-3
    for lag in (1, noise.LANES, 2 * noise.LANES, noise.BLOCK):
        assert abs((x[lag:] * x[:-lag]).mean()) < 4 / np.sqrt(x.size), lag


@pytest.mark.parametrize("place", [{"seed": 8}, {"step": 4}, {"tensor": 3}])
def test_another_place_has_noise_of_its_own(place: dict[str, int]) -> None:
    x, y = filled(2**16), filled(2**16, **place)
    assert abs((x * y).mean()) < 4 / 2**8
    assert (x == y).mean() < 1e-3


def test_it_does_not_depend_on_the_threads_nor_on_what_comes_after() -> None:
    size = 40 * noise.BLOCK + 17
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = filled(size)
        torch.set_num_threads(3)
        np.testing.assert_array_equal(filled(size), alone)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(filled(size - 5000), alone[:-5000])


def test_sweeps_from_several_threads_do_not_meet() -> None:
    with ThreadPoolExecutor(4) as pool:
        several = list(pool.map(lambda seed: filled(2**14, seed), range(8)))
    for seed, found in enumerate(several):
        np.testing.assert_array_equal(found, filled(2**14, seed))
