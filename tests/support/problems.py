"""Small random problems, tolerances, and the few reference formulas that several tests share (NumPy and SciPy only)."""

import numpy as np
import torch
from scipy.spatial.distance import cdist
from scipy.special import xlogy

import sinkdiv

#: Marginal error to ask for where a test compares with an exact answer.
TOL = {torch.float64: 1e-10, torch.float32: 1e-5}

#: What is left of an exact answer of size 1 after the arithmetic of a solve.
CLOSE = {torch.float64: 1e-9, torch.float32: 1e-5}

#: Tolerance by scipy's name of the cost, of |x−y|ᵖ.
EXPONENT = {"sqeuclidean": 2, "euclidean": 1}


#: The solvers by what tests call them.
SOLVERS = {
    "auto": sinkdiv.Auto,
    "sinkhorn": sinkdiv.Sinkhorn,
    "lbfgs": sinkdiv.LBFGS,
    "newton": sinkdiv.Newton,
}


def tight(dtype=torch.float64, solver=sinkdiv.Auto, **options):
    """Options of a solve whose value is exact up to rounding; ``options`` are more of the solver's."""
    return {"tol": TOL[dtype], "solver": solver(max_passes=50_000, **options)}


def cloud(seed, n, d=2, *, dtype=torch.float64, batch=None):
    """Points uniform in the unit cube, (n, d) or (batch, n, d)."""
    rng = np.random.default_rng(seed)
    points = rng.random((n, d) if batch is None else (batch, n, d))
    return torch.tensor(points, dtype=dtype)


def weights(seed, n, *, mass=1.0, dtype=torch.float64, batch=None):
    """Positive weights that differ by a factor of up to 5, of the given mass."""
    rng = np.random.default_rng(1000 + seed)
    w = 0.2 + 0.8 * rng.random((n,) if batch is None else (batch, n))
    return torch.tensor(mass * w / w.sum(-1, keepdims=True), dtype=dtype)


def array(tensor):
    """A float64 NumPy copy without graph."""
    return tensor.detach().to(torch.float64).numpy().copy()


def costs(x, y, name="sqeuclidean"):
    """The cost matrix (n, m) by scipy, in float64."""
    return cdist(array(x), array(y), name)


def divergence_kl(p, q):
    """KL(p|q) = Σ p log(p/q) − p + q, with 0 log 0 = 0."""
    p, q = np.asarray(p), np.asarray(q)
    ratio = np.divide(p, q, out=np.zeros_like(p), where=q > 0)
    return float((xlogy(p, ratio) - p + q).sum())


def primal(P, C, a, b, eps, rho=None):
    """<P,C> + ε KL(P|abᵀ), plus ρ₁ KL(P1|a) + ρ₂ KL(Pᵀ1|b) if the marginals are soft."""
    value = float((P * C).sum()) + eps * divergence_kl(P, np.outer(a, b))
    if rho is not None:
        value += rho[0] * divergence_kl(P.sum(1), a) + rho[1] * divergence_kl(P.sum(0), b)
    return value


def slope(function, step=1e-3):
    """dF/dt at 0 of a scalar function of t, by the central difference of fourth order."""
    values = [float(function(k * step)) for k in (-2, -1, 1, 2)]
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)


def centred(seed, shape):
    """A random direction (float64) whose entries sum to zero along the last axis."""
    direction = np.random.default_rng(2000 + seed).normal(size=shape)
    return torch.tensor(direction - direction.mean(-1, keepdims=True))


def direction(seed, shape):
    """A random direction (float64)."""
    return torch.tensor(np.random.default_rng(3000 + seed).normal(size=shape))


def assert_slope(function, tensors, directions, *, atol=1e-7, step=1e-3):
    """The derivative of function(*tensors) along the directions is the difference of fourth order, and autograd's.

    Tensors whose direction is None stay where they are.
    """
    steps = [torch.zeros_like(t) if d is None else d for t, d in zip(tensors, directions, strict=True)]
    leaves = [t.clone().requires_grad_(d is not None) for t, d in zip(tensors, directions, strict=True)]
    moving = [leaf for leaf in leaves if leaf.requires_grad]
    grads = torch.autograd.grad(function(*leaves), moving)
    assert all(torch.isfinite(grad).all() for grad in grads)
    found = sum(
        float((grad * d).sum()) for grad, d in zip(grads, (d for d in directions if d is not None), strict=True)
    )
    expected = slope(lambda t: function(*(p + t * d for p, d in zip(tensors, steps, strict=True))).detach(), step)
    assert abs(found - expected) <= atol, f"autograd {found}, finite difference {expected}"
    return found
