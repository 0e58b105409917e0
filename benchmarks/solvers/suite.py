"""Transport problems between point clouds that a solver should be judged on, easy and hard, from fixed seeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sinkdiv.costs import find_cost
from sinkdiv.geometry import CloudGeometry
from sinkdiv.solvers import Problem


@dataclass(frozen=True)
class Case:
    """Points x (n, d) and y (m, d), weights a (n,) and b (m,) of mass 1, float64."""

    name: str
    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    eps: float
    cost: str = "sqeuclidean"
    rho: tuple[float, float] = (math.inf, math.inf)

    def problem(self, dtype: torch.dtype = torch.float64) -> Problem:
        """As the solvers see it: a batch of one."""
        x, y, a, b = (tensor.to(dtype)[None] for tensor in (self.x, self.y, self.a, self.b))
        same = self.y is self.x
        geometry = CloudGeometry(x, x if same else y, find_cost(self.cost))
        return Problem(geometry, a, a if same and self.b is self.a else b, (self.eps,), self.rho)


def cases(n: int = 500) -> list[Case]:
    """The cross problems, with about ``n`` points a side."""
    return [make(n) for make in _MAKERS]


def clusters(count: int, seed: int = 0) -> list[Case]:
    """Random clusters, 2 to 6 of them, as tight as a thousandth of the square; a quarter with soft marginals."""
    return [_random_clusters(10_000 * seed + k, soft=k % 4 == 0) for k in range(count)]


def small_cases(count: int, seed: int = 0) -> list[Case]:
    """1 to 12 points a side, ε from 1e-4 to 1e3 of the spread; some duplicates, zero weights, soft marginals."""
    return [_random_small(77_777 * (seed + 1) + k) for k in range(count)]


def with_itself(cases: list[Case]) -> list[Case]:
    """Both clouds of each case against themselves."""
    sides = [(case, " (x)", case.x, case.a) for case in cases] + [(case, " (y)", case.y, case.b) for case in cases]
    return [
        Case(case.name + side, points, points, weights, weights, case.eps, case.cost, (case.rho[0], case.rho[0]))
        for case, side, points, weights in sides
    ]


def _random_clusters(seed: int, *, soft: bool, n: int = 60) -> Case:
    generator = _generator(seed)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    def cloud(centres: Tensor, width: float) -> Tensor:
        labels = torch.multinomial(random(len(centres)) ** 2 + 0.05, n, replacement=True, generator=generator)
        return centres[labels] + width * torch.randn(n, 2, generator=generator, dtype=torch.float64)

    centres = random(2 + int(5 * random(1)), 2)
    width, blur, rho = (
        10 ** (-3 + 1.7 * float(random(1))),
        10 ** (-1.6 + 0.8 * float(random(1))),
        1000 ** float(random(1)),
    )
    name = f"{len(centres)} clusters of width {width:.3f}, blur {blur:.3f}"
    return _case(name, cloud(centres, width), cloud(centres, width), blur=blur, rho=rho if soft else math.inf)


def _random_small(seed: int) -> Case:
    generator = _generator(seed)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    def repeated(points: Tensor, count: int) -> Tensor:
        return points[torch.randint(0, len(points), (count,), generator=generator)]

    def weights(count: int, zeros: bool) -> Tensor:
        w = random(count) ** integer(1, 6) + 1e-6
        w = torch.where(random(count) < 0.4, 0.0, w) if zeros else w
        return _unit(w if float(w.sum()) > 0 else None, w)

    n, m, d = integer(1, 12), integer(1, 12), integer(1, 4)
    x, y = random(n, d), random(m, d) * float(0.2 + 2 * random(1)) + float(random(1))
    y = repeated(x, m) if integer(0, 3) == 0 else y
    x = repeated(x, n) if integer(0, 3) == 0 else x
    zeros, kind, cost = integer(0, 2) == 0, integer(0, 2), ("sqeuclidean", "euclidean")[integer(0, 1)]
    a, b = weights(n, zeros), weights(m, zeros)
    points = torch.cat([x, y])
    spread = max(1e-3, float((points.amax(0) - points.amin(0)).norm())) ** find_cost(cost).exponent
    first, second = (spread * 10 ** float(4 * random(1) - 2) for _ in range(2))
    rho = [(math.inf, math.inf), (first, first), (first, second)][kind]
    b = b if kind == 0 else b * 10 ** float(2 * random(1) - 1)
    return Case(f"{n} × {m} points in {d}-D", x, y, a, b, spread * 10 ** float(7 * random(1) - 4), cost, rho)


def _case(
    name: str, x: Tensor, y: Tensor, *, blur: float, cost: str = "sqeuclidean", a: Tensor | None = None,
    b: Tensor | None = None, rho: float | tuple[float, float] = math.inf,
) -> Case:  # fmt: skip
    pair = rho if isinstance(rho, tuple) else (rho, rho)
    exponent = find_cost(cost).exponent
    return Case(name, x, y, _unit(a, x), _unit(b, y), exponent * blur**exponent, cost, pair)


def _unit(weights: Tensor | None, points: Tensor) -> Tensor:
    weights = torch.ones(len(points), dtype=torch.float64) if weights is None else weights
    return weights / weights.sum()


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _uniform(seed: int, n: int, d: int) -> Tensor:
    return torch.rand(n, d, generator=_generator(seed), dtype=torch.float64)


def _normal(seed: int, n: int, d: int) -> Tensor:
    return torch.randn(n, d, generator=_generator(seed), dtype=torch.float64)


def _cubes(blur: float, cost: str = "sqeuclidean") -> Callable[[int], Case]:
    def make(n: int) -> Case:
        x, y = _uniform(1, n, 3), 0.3 + 0.8 * _uniform(2, n, 3)
        return _case(f"cubes 3-D, shifted and scaled, {cost}, blur {blur:g}", x, y, blur=blur, cost=cost)

    return make


def _line(n: int) -> Case:
    return _case("line 1-D, blur 0.02", _uniform(3, n, 1), 0.4 + 0.6 * _uniform(4, n, 1) ** 2, blur=0.02)


def _square(n: int) -> Case:
    return _case("squares 2-D, n ≠ m, blur 0.05", _uniform(5, n, 2), _uniform(6, n // 3, 2), blur=0.05)


def _clusters(proportions: tuple[int, ...], name: str) -> Callable[[int], Case]:
    def make(n: int) -> Case:
        centres = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.87]], dtype=torch.float64)
        x = centres[torch.arange(n) % 3] + 0.01 * _normal(7, n, 2)
        labels = torch.repeat_interleave(torch.arange(3), torch.tensor(proportions))
        y = centres[labels[torch.arange(n) % len(labels)]] + 0.01 * _normal(8, n, 2)
        return _case(f"three tight clusters, {name} proportions, blur 0.05", x, y, blur=0.05)

    return make


def _log_normal(n: int) -> Case:
    a, b = (2 * _normal(9, n, 1)).exp()[:, 0], (2 * _normal(10, n, 1)).exp()[:, 0]
    x, y = _uniform(11, n, 3), _uniform(12, n, 3)
    return _case("cubes 3-D, log-normal weights, blur 0.05", x, y, blur=0.05, a=a, b=b)


def _zeros(n: int) -> Case:
    a, b = _uniform(13, n, 1)[:, 0], _uniform(14, n, 1)[:, 0]
    a, b = torch.where(a < 0.3, 0.0, a), torch.where(b < 0.3, 0.0, b)
    return _case("squares 2-D, a third without weight, blur 0.05", _uniform(15, n, 2), 0.2 + _uniform(16, n, 2),
                 blur=0.05, a=a, b=b)  # fmt: skip


def _codes(n: int) -> Case:
    x, y = normalize(_normal(17, 128, 10)), normalize(_normal(18, 128, 10))
    return _case("codes on the sphere 10-D, 128 points, blur 0.3", x, y, blur=0.3)


def _gauss_64(n: int) -> Case:
    return _case("Gaussians 64-D, blur 1", _normal(19, n, 64), 0.5 + 0.7 * _normal(20, n, 64), blur=1.0)


def _heavy(n: int) -> Case:
    def student(seed: int) -> Tensor:
        return _normal(seed, n, 2) / (_normal(seed + 1, 3 * n, 1).reshape(n, 3, 1).square().mean(1)).sqrt()

    return _case("Student t, 3 degrees, 2-D, blur 0.3", student(21), 0.5 + student(23), blur=0.3)


def _curve(n: int) -> Case:
    t, s = 9 * _uniform(25, n, 1), 9 * _uniform(26, n, 1) + 0.5
    spiral = torch.cat([t * t.cos(), t * t.sin()], 1) / 9
    return _case("spiral to its mirror image 2-D, blur 0.05", spiral, torch.cat([s * s.sin(), s * s.cos()], 1) / 9,
                 blur=0.05)  # fmt: skip


def _permuted(n: int) -> Case:
    x = _uniform(27, n, 3)
    return _case("identical clouds 3-D in another order, blur 0.05", x, x.flip(0).clone(), blur=0.05)


def _soft(rho: float | tuple[float, float], name: str) -> Callable[[int], Case]:
    def make(n: int) -> Case:
        x, y = _uniform(28, n, 3), 0.3 + 0.8 * _uniform(29, n, 3)
        return _case(f"cubes 3-D, soft marginals, {name}, blur 0.05", x, y, blur=0.05, rho=rho)

    return make


_MAKERS: list[Callable[[int], Case]] = [
    _line,
    _square,
    _cubes(0.5),
    _cubes(0.1),
    _cubes(0.05),
    _cubes(0.02),
    _cubes(0.05, "euclidean"),
    _cubes(0.01, "euclidean"),
    _clusters((1, 1, 1), "equal"),
    _clusters((2, 1, 1), "unequal"),
    _log_normal,
    _zeros,
    _codes,
    _gauss_64,
    _heavy,
    _curve,
    _permuted,
    _soft(0.05, "ρ = 10 ε"),
    _soft(5.0, "ρ = 1000 ε"),
    _soft((0.5, 50.0), "ρ = (100, 10000) ε"),
]
