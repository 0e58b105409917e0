"""Whether two sets of images cover the same ground: supports estimated by balls around every point."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sinkdiv.generative.scores.subject import HIGHER, Score, Subject

NEIGHBOURS = 5
# Distances of this many rows to all of the other set at a time: of 10,000, they stay near the core.
ROWS = 100


class Support(NamedTuple):
    """Shares between 0 and 1, except `density`, which may exceed 1; higher is better for all."""

    precision: float
    recall: float
    density: float
    coverage: float


def support_scores(features: Tensor, reference: Tensor, neighbours: int = NEIGHBOURS) -> Support:
    """How much of each set lies in the support of the other, where a set's support is a union of balls.

    A ball's centre is a point of the set, its radius the distance to the k-th nearest other point of the same set.

    - `precision`: share of `features` inside some ball of `reference` (Kynkäänniemi et al. 2019). Low: some images
      are like no real one.
    - `recall`: share of `reference` inside some ball of `features` (the same). Low: some real images are like no
      generated one.
    - `density`: the number of balls of `reference` around a point of `features`, its mean over k. It is precision that
      one outlier among the real images, whose ball is wide, cannot raise much (Naeem et al. 2020); its expectation is
      1 for two samples of one law.
    - `coverage`: share of the balls of `reference` that hold a point of `features` (the same); its expectation is
      near 1 − 2^−k for two equally large samples of one law. Unlike recall it does not believe wide balls of
      generated outliers.

    Read them together: a single image that lies where balls overlap, repeated, has the highest precision and density,
    and no recall. None is unbiased; only scores from equally many images, with one k, compare. k = 5 is Naeem's;
    Kynkäänniemi took 3. Time O(d n m), memory O(n + m).

    Args:
        features: (n, d) of the images to judge, n > neighbours.
        reference: (m, d) of real images, m > neighbours.
        neighbours: k.
    """
    # Small norms keep the rounding of |x|² + |y|² − 2 x·y far below the radii.
    centre = reference.mean(0)
    x, y = features - centre, reference - centre
    x_radii, y_radii = _radii(x, neighbours), _radii(y, neighbours)
    precise, balls, recalled = 0, 0, torch.zeros(len(y), dtype=torch.bool)
    nearest = torch.full_like(y_radii, torch.inf)
    for rows, squares in _squares(x, y):
        around = (squares <= y_radii).sum(1)
        precise += int((around > 0).sum())
        balls += int(around.sum())
        recalled |= (squares <= x_radii[rows, None]).any(0)
        nearest = torch.minimum(nearest, squares.amin(0))
    return Support(
        precision=precise / len(x),
        recall=float(recalled.double().mean()),
        density=balls / (neighbours * len(x)),
        coverage=float((nearest <= y_radii).double().mean()),
    )


def _radii(x: Tensor, neighbours: int) -> Tensor:
    """(n,) squared distances to the k-th nearest other point; the nearest of all is the point itself."""
    nearest = (squares.topk(neighbours + 1, largest=False, sorted=False).values for _, squares in _squares(x, x))
    return torch.cat([block.amax(1) for block in nearest])


def _squares(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances of blocks of rows of `x` to all of `y`."""
    norms = y.square().sum(1)
    for start in range(0, len(x), ROWS):
        rows = slice(start, start + ROWS)
        yield rows, (x[rows].square().sum(1, keepdim=True) + norms).addmm_(x[rows], y.T, alpha=-2)


def _support(subject: Subject) -> Support:
    return support_scores(*subject.features)


def _score(name: str) -> Score:
    title = f"samples, {name} ({{features}})"
    return Score(title, 3, lambda subject: getattr(subject.once(_support), name), HIGHER, Subject.missing_features)


PRECISION, RECALL, DENSITY, COVERAGE = map(_score, Support._fields)
