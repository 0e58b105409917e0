"""Intervals of means against scipy's and their promise."""

import numpy as np
import pytest
from scipy import stats

from sinkdiv.generative.intervals import mean_and_interval


def test_interval_is_students() -> None:
    values = [3.1, 2.7, 3.6, 2.9]
    mean, half_width = mean_and_interval(values)
    lower, upper = stats.t.interval(0.95, df=3, loc=np.mean(values), scale=stats.sem(values))
    assert (mean - half_width, mean + half_width) == (pytest.approx(lower), pytest.approx(upper))


def test_three_values_cover_the_mean_as_often_as_promised() -> None:
    draws = np.random.default_rng(0).normal(size=(2000, 3))
    intervals = [mean_and_interval(row.tolist()) for row in draws]
    covered = np.mean([abs(mean) <= half_width for mean, half_width in intervals])
    assert covered == pytest.approx(0.95, abs=3 * (0.95 * 0.05 / 2000) ** 0.5)


def test_one_value_has_no_interval_and_none_no_mean() -> None:
    assert mean_and_interval([2.5]) == (2.5, None)
    with pytest.raises(ValueError, match="values is empty"):
        mean_and_interval([])
