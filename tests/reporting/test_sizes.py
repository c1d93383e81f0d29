"""What is shown of λ̂ over trainings: a dot for each, their spread, and checkpoints in order."""

from __future__ import annotations

import numpy as np
import pytest

from replicate.reporting.figures.sizes import checkpoints, sizes
from replicate.reporting.tables.sizes import summary
from tests.study import known_trainings as known

LAWS = {known.COARSE: known.power(0.2), known.RADIUS: known.power(-0.8)}


def test_the_figure_has_a_panel_for_each_setting_and_a_dot_for_each_training() -> None:
    rows = known.trainings(np.random.default_rng(1), LAWS)
    rows += [known.row(step=10, llc=99.0), known.row(text="sampled")]
    panels = sizes(rows, "sizes", known.JUDGED).axes
    assert [axes.get_title("left").split("   ")[1] for axes in panels] == [
        "(nβ, γ) = (1910, 300)",
        "(nβ, γ) = (1910, 0.0088·d)",
    ]
    for axes, slope in zip(panels, (0.2, -0.8), strict=True):
        dots, means = axes.lines[0], axes.lines[1]
        assert len(np.asarray(dots.get_xdata())) == sum(known.TRAININGS)
        d, llc = np.log(np.asarray(means.get_xdata(), float)), np.log(means.get_ydata())
        assert np.polyfit(d, np.asarray(llc, float), 1)[0] == pytest.approx(slope, abs=0.05)


def test_checkpoints_are_in_the_order_of_the_training_and_each_has_its_loss() -> None:
    steps = {800: (9.0, 1.5), 50: (40.0, 4.0), 8: (-1.0, 6.0)}
    rows = [
        known.row(step=s, llc=llc, interval=(llc - 1, llc + 1), baseline_loss=loss)
        for s, (llc, loss) in steps.items()
    ]
    left, right = checkpoints(rows, "sizes").axes
    assert np.asarray(left.lines[0].get_xdata()).tolist() == [50, 800]  # λ̂ > 0 alone
    assert np.asarray(left.lines[0].get_ydata()).tolist() == [40, 9]
    assert np.asarray(right.lines[0].get_xdata()).tolist() == [8, 50, 800]
    assert np.asarray(right.lines[0].get_ydata()).tolist() == [6, 4, 1.5]


def test_untrained_checkpoints_have_a_figure_that_says_what_is_missing() -> None:
    rows = [known.row(step=step, llc=-1.0, interval=(-2, 0)) for step in (0, 8)]
    left, right = checkpoints(rows, "sizes").axes
    assert [text.get_text() for text in left.texts] == ["no λ̂ above 0"]
    assert [text.get_text() for text in right.texts] == ["no nats above 0"]


def test_the_spread_over_trainings_is_told_beside_the_error_of_each() -> None:
    rows = [
        known.row(training=k, log_llc=3 + 0.1 * k, error=0.02, degree=(2.0 + k, 0.1))
        for k in (-1, 0, 1)
    ]
    found = summary([*rows[:2], rows[2].model_copy(update={"regime": "plateau"})])
    assert found.llc == pytest.approx(np.exp(3))
    assert found.spread == pytest.approx(0.1)
    assert found.error == pytest.approx(0.02)
    assert found.degree == pytest.approx(2.0)
    assert found.regimes == "crossover (2), plateau (1)"
    assert summary([known.row(llc=-1.0)]).llc is None
