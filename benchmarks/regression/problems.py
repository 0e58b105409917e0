"""The problems whose numbers are compared: every cost, marginal, dtype, dimension, size and input there is.

Inputs come from NumPy's generator with a seed that belongs to the name, so that two trees get the same ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import sinkdiv

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Clouds:
    """A problem between points.

    ``batch`` is B, or None for a single problem; ``empty`` gives some points no weight; ``itself`` compares x with x;
    ``mass`` is the second side's mass (the first side's is 1); ``uniform`` leaves the weights out. ``watched`` solves
    pass by pass, as a large problem is solved: a callback looks at each convergence test.
    """

    name: str
    n: int
    m: int
    d: int
    what: dict[str, Any]
    cost: str = "sqeuclidean"
    dtype: str = "float64"
    batch: int | None = None
    empty: bool = False
    itself: bool = False
    uniform: bool = False
    mass: float = 1.0
    scale: float = 1.0
    watched: bool = False
    second: bool = True
    tol: float = 1e-6
    max_passes: int = 2000

    def points(self) -> tuple[Tensor, Tensor]:
        random = generator(self.name)
        x = random.random(self._shape(self.n, self.d))
        y = 0.8 * random.random(self._shape(self.m, self.d)) + 0.3
        if self.itself:
            y = x
        return tensor(self.scale * x, self.dtype), tensor(self.scale * y, self.dtype)

    def weights(self) -> tuple[Tensor, Tensor] | tuple[None, None]:
        if self.uniform:
            return None, None
        random = generator(self.name + " weights")
        a = masses(random, self._shape(self.n), 1.0, empty=self.empty)
        b = a if self.itself else masses(random, self._shape(self.m), self.mass, empty=self.empty)
        return tensor(a, self.dtype), tensor(b, self.dtype)

    def ground(self) -> Any:
        """The cost as a user gives it, with parameters of the problem's dtype where it is learned."""
        return COSTS[self.cost](self)

    def _shape(self, *shape: int) -> tuple[int, ...]:
        return shape if self.batch is None else (self.batch, *shape)


@dataclass(frozen=True)
class Matrix:
    """A problem of a cost matrix: uniform costs, or squared distances in the plane; ``forbidden`` is a fraction."""

    name: str
    n: int
    m: int
    what: dict[str, Any]
    method: str = "auto"
    kind: str = "uniform"
    dtype: str = "float64"
    batch: int | None = None
    forbidden: float = 0.0
    empty: bool = False
    mass: float = 1.0
    watched: bool = False
    tol: float = 1e-6
    max_passes: int = 10_000

    def costs(self) -> Tensor:
        random = generator(self.name)
        batch = () if self.batch is None else (self.batch,)
        if self.kind == "uniform":
            C = random.random((*batch, self.n, self.m))
        else:
            x, y = random.random((*batch, self.n, 2)), random.random((*batch, self.m, 2))
            C = np.square(x[..., :, None, :] - y[..., None, :, :]).sum(-1)
        if self.forbidden:
            C[random.random(C.shape) < self.forbidden] = np.inf
        return tensor(C, self.dtype)

    def weights(self) -> tuple[Tensor, Tensor]:
        random = generator(self.name + " weights")
        batch = () if self.batch is None else (self.batch,)
        a = masses(random, (*batch, self.n), 1.0, empty=self.empty)
        b = masses(random, (*batch, self.m), self.mass, empty=self.empty)
        return tensor(a, self.dtype), tensor(b, self.dtype)


@dataclass(frozen=True)
class Losses:
    """Values and gradients of losses as a training loop calls them; see `quantities` for the kinds."""

    name: str
    kind: str
    what: dict[str, Any]
    sizes: tuple[tuple[int, int], ...] = ((40, 30),)
    d: int = 3
    dtype: str = "float64"
    batch: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def points(self, call: int = 0) -> tuple[list[Tensor], list[Tensor]]:
        """One pair of clouds for each of the sizes; ``call`` moves them a little, as training does."""
        random = generator(self.name)
        batch = () if self.batch is None else (self.batch,)
        xs = [tensor(random.random((*batch, n, self.d)), self.dtype) for n, _ in self.sizes]
        ys = [tensor(0.8 * random.random((*batch, m, self.d)) + 0.3 + 0.02 * call, self.dtype) for _, m in self.sizes]
        return xs, ys

    def weights(self) -> tuple[list[Tensor], list[Tensor]]:
        random = generator(self.name + " weights")
        batch = () if self.batch is None else (self.batch,)
        first = [tensor(masses(random, (*batch, n), 1.0), self.dtype) for n, _ in self.sizes]
        second = [tensor(masses(random, (*batch, m), 1.0), self.dtype) for _, m in self.sizes]
        return first, second


def generator(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def tensor(array: np.ndarray, dtype: str) -> Tensor:
    return torch.tensor(array, dtype=DTYPES[dtype])


def masses(random: np.random.Generator, shape: tuple[int, ...], mass: float, *, empty: bool = False) -> np.ndarray:
    """Positive weights that differ by a factor of up to 5; some of them 0 where ``empty``."""
    w = 0.2 + 0.8 * random.random(shape)
    if empty:
        w[..., :: max(2, shape[-1] // 3)] = 0
    return mass * w / w.sum(-1, keepdims=True)


def network(problem: Clouds) -> nn.Module:
    """A small network from points to features; its numbers are those of `generator`, not PyTorch's."""
    module = nn.Sequential(nn.Linear(problem.d, 8), nn.Tanh(), nn.Linear(8, 4)).to(DTYPES[problem.dtype])
    random = generator(problem.name + " network")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.tensor(random.normal(size=tuple(parameter.shape))) / 2)
    return module


def elongated(x: Tensor, y: Tensor) -> Tensor:
    """A cost that no name has: squared distances, the first coordinate counting three times, and their root."""
    squares = (x[..., :, None, :] - y[..., None, :, :]).square()
    return (squares.sum(-1) + 2 * squares[..., 0] + 0.01).sqrt()


COSTS: dict[str, Callable[[Clouds], Any]] = {
    "sqeuclidean": lambda _: "sqeuclidean",
    "euclidean": lambda _: "euclidean",
    "cosine": lambda _: "cosine",
    "power 1.5": lambda _: sinkdiv.PowerCost(1.5),
    "power 3": lambda _: sinkdiv.PowerCost(3),
    "learned": network,
    "learned euclidean": lambda problem: sinkdiv.FeatureCost(network(problem), cost="euclidean"),
    "function": lambda _: elongated,
}


def zoo() -> list[Clouds | Matrix | Losses]:
    return [*small_clouds(), *streamed_clouds(), *matrices(), *losses()]


def small_clouds() -> list[Clouds]:
    """Solved whole, in one native call, where the cost is between points."""
    blur = {"blur": 0.1}
    return [
        Clouds("squared 1-D", 40, 30, 1, {"blur": 0.05}),
        Clouds("squared 3-D", 60, 50, 3, blur),
        Clouds("squared 3-D float32", 60, 50, 3, blur, dtype="float32", tol=1e-4),
        Clouds("squared 3-D default tolerance", 60, 50, 3, blur, dtype="float32", tol=1e-3),
        Clouds("squared 10-D", 50, 70, 10, {"blur": 0.3}),
        Clouds("squared 64-D", 48, 64, 64, {"blur": 0.5}),
        Clouds("squared 64-D float32", 48, 64, 64, {"blur": 0.5}, dtype="float32", tol=1e-4),
        Clouds("euclidean 1-D", 30, 40, 1, {"blur": 0.05}, cost="euclidean"),
        Clouds("euclidean 3-D", 50, 60, 3, blur, cost="euclidean"),
        Clouds("euclidean 3-D float32", 50, 60, 3, blur, cost="euclidean", dtype="float32", tol=1e-4),
        Clouds("euclidean 10-D", 30, 40, 10, {"blur": 0.2}, cost="euclidean"),
        Clouds("power 1.5 3-D", 40, 50, 3, blur, cost="power 1.5"),
        Clouds("power 1.5 10-D float32", 40, 50, 10, {"blur": 0.3}, cost="power 1.5", dtype="float32", tol=1e-4),
        Clouds("power 3 2-D", 30, 25, 2, {"eps": 0.05}, cost="power 3"),
        Clouds("cosine 3-D", 40, 50, 3, {"blur": 0.2}, cost="cosine"),
        Clouds("cosine 64-D float32", 40, 50, 64, {"eps": 0.05}, cost="cosine", dtype="float32", tol=1e-4),
        Clouds("learned 3-D", 40, 50, 3, {"blur": 0.3}, cost="learned"),
        Clouds("learned euclidean 10-D", 30, 40, 10, {"blur": 0.3}, cost="learned euclidean"),
        Clouds("function 2-D", 30, 40, 2, {"eps": 0.05}, cost="function"),
        Clouds("function 2-D batch soft", 20, 25, 2, {"eps": 0.05, "rho": 0.5}, cost="function", batch=2),
        Clouds("soft 3-D", 40, 50, 3, {"blur": 0.1, "reach": 0.5}, mass=1.3),
        Clouds("soft 3-D float32", 40, 50, 3, {"blur": 0.1, "reach": 0.5}, mass=1.3, dtype="float32", tol=1e-4),
        Clouds("soft euclidean 2-D", 40, 50, 2, {"blur": 0.1, "rho": 0.4}, cost="euclidean", mass=0.7),
        Clouds("a pair of reaches", 40, 50, 3, {"blur": 0.1, "reach": (0.3, 1.0)}, mass=1.2),
        Clouds("a pair of strengths float32", 30, 30, 2, {"eps": 0.1, "rho": (0.5, 2.0)}, dtype="float32", tol=1e-4),
        Clouds("zero weights", 40, 50, 3, blur, empty=True),
        Clouds("zero weights soft", 40, 50, 3, {"blur": 0.1, "reach": 0.5}, empty=True, mass=1.3),
        Clouds(
            "zero weights euclidean float32", 40, 50, 2, blur, cost="euclidean", empty=True, dtype="float32", tol=1e-4
        ),
        Clouds("batch 3-D", 30, 40, 3, blur, batch=4),
        Clouds("batch 3-D float32", 30, 40, 3, blur, batch=4, dtype="float32", tol=1e-4),
        Clouds("batch euclidean soft", 20, 25, 2, {"blur": 0.1, "reach": 0.4}, cost="euclidean", batch=3, mass=1.1),
        Clouds("batch zero weights", 20, 25, 2, blur, batch=3, empty=True),
        Clouds("one point against many", 1, 30, 3, blur),
        Clouds("many points against one", 30, 1, 3, blur, dtype="float32", tol=1e-4),
        Clouds("one point against one", 1, 1, 2, blur),
        Clouds("one soft point against many", 1, 30, 3, {"blur": 0.1, "reach": 0.5}, mass=1.3),
        Clouds("itself", 40, 40, 3, blur, itself=True),
        Clouds("itself soft euclidean", 40, 40, 3, {"blur": 0.1, "reach": 0.5}, cost="euclidean", itself=True),
        Clouds("uniform weights", 64, 64, 10, {"blur": 0.3}, uniform=True, dtype="float32", tol=1e-3),
        Clouds("uniform weights float64", 64, 48, 3, blur, uniform=True),
        Clouds("large scale float32", 40, 50, 3, {"blur": 1e4}, scale=1e5, dtype="float32", tol=1e-3),
        Clouds("not converged", 60, 50, 3, {"blur": 0.01}, max_passes=20),
        Clouds("fixed number of passes", 40, 50, 3, blur, tol=None, max_passes=40),
        Clouds("small blur", 50, 50, 2, {"blur": 0.02}, tol=1e-3, second=False),
    ]


def streamed_clouds() -> list[Clouds]:
    """Solved pass by pass: small ones that a callback watches, and large ones."""
    blur = {"blur": 0.1}
    large = {"second": False, "uniform": True, "tol": 1e-3}
    return [
        Clouds("watched squared", 60, 50, 3, blur, watched=True),
        Clouds("watched squared float32", 60, 50, 3, blur, watched=True, dtype="float32", tol=1e-4),
        Clouds("watched euclidean", 50, 60, 3, blur, cost="euclidean", watched=True),
        Clouds("watched power", 50, 60, 3, blur, cost="power 1.5", watched=True),
        Clouds("watched soft pair", 40, 50, 3, {"blur": 0.1, "reach": (0.3, 1.0)}, mass=1.2, watched=True),
        Clouds("watched zero weights", 40, 50, 3, blur, empty=True, watched=True),
        Clouds("watched batch", 30, 40, 3, blur, batch=3, watched=True),
        Clouds("watched itself", 40, 40, 3, blur, itself=True, watched=True),
        Clouds("watched small blur", 60, 50, 2, {"blur": 0.02}, watched=True, tol=1e-3, second=False),
        Clouds("large squared float32", 1500, 1400, 3, blur, dtype="float32", **large),
        Clouds("large squared", 1300, 1200, 3, blur, **large),
        Clouds("large squared 64-D float32", 1500, 1200, 64, {"blur": 1.0}, dtype="float32", **large),
        Clouds("large euclidean float32", 1500, 1200, 3, blur, cost="euclidean", dtype="float32", **large),
        Clouds("large soft float32", 1500, 1200, 3, {"blur": 0.1, "reach": 0.5}, dtype="float32", **large),
        Clouds("large learned float32", 1500, 1200, 3, {"blur": 0.5}, cost="learned", dtype="float32", **large),
        Clouds("large power float32", 1200, 1100, 3, blur, cost="power 1.5", dtype="float32", **large),
    ]


def matrices() -> list[Matrix]:
    methods = ("auto", "sinkhorn", "newton", "lbfgs")
    return [
        *(Matrix(f"uniform costs {method}", 60, 50, {"eps": 0.05}, method) for method in methods),
        *(Matrix(f"small eps {method}", 60, 50, {"eps": 0.005}, method, kind="plane") for method in methods),
        *(Matrix(f"forbidden pairs {method}", 40, 40, {"eps": 0.1}, method, forbidden=0.3) for method in methods),
        *(Matrix(f"soft costs {method}", 40, 50, {"eps": 0.05, "rho": 0.5}, method, mass=1.2) for method in methods),
        *(Matrix(f"watched costs {method}", 60, 50, {"eps": 0.02}, method, watched=True) for method in methods),
        Matrix("soft pair of costs", 40, 50, {"eps": 0.05, "rho": (0.5, 2.0)}, mass=1.2),
        Matrix("float32 costs", 60, 50, {"eps": 0.05}, dtype="float32", tol=1e-4),
        Matrix("float32 costs newton", 60, 50, {"eps": 0.05}, "newton", dtype="float32", tol=1e-4),
        Matrix("batch of costs", 40, 30, {"eps": 0.02}, batch=3),
        Matrix("batch of costs lbfgs", 40, 30, {"eps": 0.02}, "lbfgs", batch=3),
        Matrix("batch of costs newton", 40, 30, {"eps": 0.02}, "newton", batch=3),
        Matrix("costs and zero weights", 40, 30, {"eps": 0.05}, empty=True),
        Matrix("costs and zero weights newton", 40, 30, {"eps": 0.05}, "newton", empty=True),
        Matrix("one row", 1, 20, {"eps": 0.05}),
        Matrix("late costs", 200, 200, {"eps": 0.002}, kind="plane"),
        Matrix("costs of large clouds", 1100, 1000, {"eps": 0.02}, kind="plane"),
        Matrix("fixed number of passes over costs", 40, 30, {"eps": 0.05}, tol=None, max_passes=40),
    ]


def losses() -> list[Losses]:
    blur = {"blur": 0.1}
    several = ((40, 30), (10, 25), (1, 12), (64, 64))
    return [
        Losses("lists", "function", blur, several),
        Losses("lists float32 sharp", "function", blur, several, dtype="float32", options={"value": "sharp"}),
        Losses("lists soft", "function", {"blur": 0.1, "reach": 0.5}, several),
        Losses("a batch", "function", blur, ((30, 20),), batch=4),
        Losses("transport cost", "cost", blur),
        Losses("transport cost sharp", "cost", blur, options={"value": "sharp"}),
        Losses("unrolled", "unrolled", blur),
        Losses("unrolled sharp", "unrolled", blur, options={"value": "sharp"}),
        Losses("unrolled soft float32", "unrolled", {"blur": 0.1, "reach": 0.5}, dtype="float32"),
        Losses("unrolled batch euclidean", "unrolled", blur, batch=3, options={"cost": "euclidean"}),
        Losses("warm starts", "warm", blur, ((80, 70),)),
        Losses("warm starts float32", "warm", {"blur": 0.05}, ((80, 70),), dtype="float32"),
        Losses("warm starts large", "warm", {"blur": 0.1}, ((1200, 1100),), dtype="float32"),
        Losses("energy distance", "mmd", {}),
        Losses("gaussian mmd", "mmd", {"kernel": "gaussian", "blur": 0.3}),
        Losses("laplacian mmd batch float32", "mmd", {"kernel": "laplacian", "blur": 0.3}, dtype="float32", batch=3),
    ]
