"""All combinations are tried, and the write-up's rule chooses among those that lost no chain."""

from __future__ import annotations

import numpy as np
import pytest

from replicate import search
from replicate.params import load
from replicate.sampling import Setting
from tests.conftest import ROOT
from tests.scenarios import BASELINE, trace


def test_the_write_ups_grid_has_its_144_settings() -> None:
    """SGLD: 4 × 3 × 3 × 3 = 108; SGNHT: 4 × 3 × 3 = 36."""
    plan = load(ROOT / "params.yaml").families["gpt2"].search
    assert plan.sgnht is not None
    sgld = search.settings("sgld", plan.sgld.model_dump())
    sgnht = search.settings("sgnht", plan.sgnht.model_dump())
    assert (len(set(sgld)), len(set(sgnht))) == (108, 36)
    assert Setting("sgld", 1e-7, weight_decay=0.01, localization=0.1, bounding_box=None) in sgld
    assert all(setting.diffusion for setting in sgnht)


def test_stability_is_mean_over_standard_deviation_across_chains() -> None:
    """Three chains whose losses are exactly 1, 2 and 3 above the baseline: λ̂ = nβ·(1, 2, 3), 2/1 whatever nβ."""
    data = trace(groups=1, chains=3)
    data.loss[:] = BASELINE + np.array([1.0, 2.0, 3.0])[None, :, None]
    result = search.outcome(data, nbeta=7.0, baseline=BASELINE)
    assert result.mean == pytest.approx(14.0, rel=1e-3)
    assert result.stability == pytest.approx(2.0, rel=1e-3)


def test_the_most_stable_setting_that_lost_no_chain_is_chosen() -> None:
    outcomes = [search.Outcome(10.0, 5.0, 0), search.Outcome(90.0, 1.0, 1), search.Outcome(10.0, 1.0, 0), search.Outcome(-50.0, 1.0, 0)]
    assert search.choose(outcomes) == 2
    assert search.choose(outcomes[1:2]) is None


def test_a_setting_whose_chains_all_failed_stays_in_the_table() -> None:
    data = trace(groups=1, chains=3)
    data.failed[:] = True
    result = search.outcome(data, 1.0, BASELINE)
    assert result.failed_chains == 3
    assert np.isnan(result.stability)
