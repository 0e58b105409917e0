"""Random problems that a solver of whole small problems takes, and when two of their solutions are the same."""

import math
from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from problems import EXPONENT, cloud, weights
from sinkdiv.costs import find_cost
from sinkdiv.geometry import CloudGeometry, MatrixGeometry
from sinkdiv.solvers import Problem


@dataclass(frozen=True)
class Kind:
    """What a random transport problem looks like."""

    seed: int = 0
    batch: int = 1
    n: int = 17
    m: int = 8
    d: int = 2
    eps: float = 0.1
    offset: float = 0.3
    rho: tuple[float, float] = (math.inf, math.inf)
    name: str = "sqeuclidean"
    form: str = "points"
    empty: bool = False


KINDS = st.builds(
    Kind,
    seed=st.integers(0, 9999),
    batch=st.integers(1, 3),
    n=st.sampled_from([1, 2, 5, 17, 33, 90]),
    m=st.sampled_from([1, 3, 8, 32, 64]),
    d=st.sampled_from([1, 2, 3, 9]),
    eps=st.floats(-2.3, 0.5).map(lambda exponent: 10**exponent),
    offset=st.sampled_from([0.0, 0.3, 2.0]),
    rho=st.sampled_from([(math.inf, math.inf), (0.3, 0.3), (10.0, 10.0), (0.3, 2.0)]),
    name=st.sampled_from(list(EXPONENT)),
    form=st.sampled_from(["points", "points", "symmetric", "matrix"]),
    empty=st.booleans(),
)


def transport_problem(kind, dtype=torch.float64):
    """A problem as `sinkdiv.solvers` takes it; the first of a batch is a hundred times smaller and so easier."""

    def side(seed, count):
        points, w = cloud(seed, count, kind.d, batch=kind.batch), weights(seed, count, batch=kind.batch)
        if kind.batch > 1:
            points[0] *= 0.01
        if kind.empty and count > 1:
            w[:, -1] = 0
        return points.to(dtype), (w / w.sum(-1, keepdim=True)).to(dtype)

    x, a = side(kind.seed, kind.n)
    y, b = (x, a) if kind.form == "symmetric" else side(kind.seed + 1, kind.m)
    if kind.form != "symmetric":
        y = y + kind.offset
    cost = find_cost(kind.name)
    geometry = MatrixGeometry(cost.matrix(x, y)) if kind.form == "matrix" else CloudGeometry(x, y, cost)
    return Problem(geometry, a, b, (kind.eps,) * len(a), kind.rho)


#: Units of rounding that two solves of at most `SHORT` passes may be apart in errors, values and potentials: about four
#: times what the worst of 7,000 random problems needed. The extrapolation multiplies rounding from step to step, most
#: in directions that neither errors nor values see; after some hundred passes nothing of it is left to compare.
ERROR_UNITS, VALUE_UNITS, POTENTIAL_UNITS, SHORT = 3e4, 1e3, 1e6, 40


def assert_same_solution(one, other, problem, limits):
    """The same decisions at every step, and numbers that differ by rounding only.

    An exponent of size spread/ε carries as many units of rounding, in potentials (relative to ε) and in marginal
    errors alike; a constant found from soft marginals carries as many units of ρ.
    """
    assert one.status == other.status
    spread = float(problem.geometry.spread().max())
    # Each value is below the optimum by at most the product of its gradient, which is the marginal error, with the way
    # to the optimal potentials, which vary by no more than the cost.
    torch.testing.assert_close(one.value, other.value, rtol=0, atol=2 * limits.tol * (spread + problem.eps[0]))
    if max(int(solution.passes.max()) for solution in (one, other)) > SHORT:
        return
    assert one.passes.tolist() == other.passes.tolist()
    assert [passes for passes, _ in one.history] == [passes for passes, _ in other.history]
    size = spread if problem.balanced else spread + max(problem.rho)
    rounding = torch.finfo(torch.float64).eps * (1 + size / problem.eps[0])
    errors = [torch.tensor([error for _, error in solution.history]).double() for solution in (one, other)]
    torch.testing.assert_close(*errors, rtol=1e-6, atol=ERROR_UNITS * rounding)  # the history is kept in float32
    torch.testing.assert_close(one.marginal_error, other.marginal_error, rtol=0, atol=ERROR_UNITS * rounding)
    torch.testing.assert_close(one.value, other.value, rtol=0, atol=VALUE_UNITS * rounding * problem.eps[0])
    gauge = [solution.f.mean(-1, keepdim=True) if problem.balanced else 0.0 for solution in (one, other)]
    for name, sign in (("f", -1), ("g", 1), ("raw_f", -1), ("raw_g", 1)):
        potentials = [getattr(solution, name) + sign * c for solution, c in zip((one, other), gauge, strict=True)]
        torch.testing.assert_close(*potentials, rtol=0, atol=POTENTIAL_UNITS * rounding * problem.eps[0])
