"""Means of repeated measurements, with what is known of their accuracy."""

import math
import statistics
from collections.abc import Sequence

from scipy import stats

CONFIDENCE = 0.95


def mean_and_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and the half width of its 95 % Student interval; None in its place for a single value.

    The interval holds for independent, normally distributed values, such as scores of runs that differ in their seed.

    Raises:
        ValueError: when there are no values.
    """
    if not values:
        raise ValueError("values is empty; a mean needs at least one")
    mean = statistics.fmean(values)
    if len(values) == 1:
        return mean, None
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return mean, quantile * statistics.stdev(values) / math.sqrt(len(values))
