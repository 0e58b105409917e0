"""Latent losses against closed forms, brute force, SciPy and finite differences."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import sinkdiv
from generative_models import sinkhorn_loss
from problems import array, costs
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.latent_losses import (
    EnergyLoss,
    GaussianLoss,
    HungarianLoss,
    LatentLoss,
    MMDLoss,
    SinkhornLoss,
    SlicedLoss,
)
from sinkdiv.generative.latent_losses.mmd import imq_mmd
from sinkdiv.generative.latent_losses.rounding import rounded_cost, rounded_plan
from sinkdiv.generative.latent_losses.sinkhorn import geodesic_cost

TIGHT = 1e-11


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(seed: int, count: int, dim: int, *, sphere: bool = False) -> Tensor:
    drawn = torch.randn(count, dim, generator=source(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(drawn, dim=-1) if sphere else drawn


OPTIONS: dict[str, dict[str, Any]] = {
    "entropic": {"eps": 0.5},
    "not debiased": {"eps": 0.5, "debias": "none"},
    "debiased by the other half": {"eps": 0.5, "debias": "independent"},
    "euclidean": {"eps": 0.5, "latent_cost": "euclidean"},
    "sharp": {"eps": 0.5, "value": "sharp"},
    "unrolled": {"eps": 0.5, "value": "sharp", "derivative": "unrolled", "iterations": 5},
    "rounded": {"eps": 0.5, "value": "sharp", "rounding": True},
    "rounded, not debiased": {"eps": 0.5, "value": "sharp", "rounding": True, "debias": "none"},
}
LOSSES: dict[str, LatentLoss] = {
    "mmd": MMDLoss(6.0),
    "sliced": SlicedLoss(),
    "gaussian": GaussianLoss(),
    "hungarian": HungarianLoss(),
    "energy": EnergyLoss(),
    **{name: sinkhorn_loss(**options, tol=TIGHT) for name, options in OPTIONS.items()},
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_the_value(name: str) -> None:
    codes, draws = points(0, 7, 3).requires_grad_(), points(1, 7, 3)
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, draws, source()), codes, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_float32_is_close_to_float64_and_keeps_its_type(name: str) -> None:
    codes, draws = points(2, 30, 4), 1 + points(3, 30, 4)
    loss_of = LOSSES[name]
    if isinstance(loss_of, SinkhornLoss):
        loss_of = sinkhorn_loss(**OPTIONS[name], tol=1e-5)
    found = loss_of(codes.float(), draws.float(), source())
    assert found.dtype == torch.float32
    assert found.shape == ()
    assert float(found) == pytest.approx(float(LOSSES[name](codes, draws, source())), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("options", [{}, {"value": "sharp"}, {"value": "sharp", "rounding": True}])
@pytest.mark.parametrize("cost", ["sqeuclidean", "geodesic"])
def test_geodesic_and_chordal_losses_have_right_gradients_on_the_sphere(options: dict[str, Any], cost: str) -> None:
    draws = points(5, 6, 3, sphere=True)
    loss_of = sinkhorn_loss(0.4, latent_cost=cost, **options, tol=TIGHT)

    def loss(outputs: Tensor) -> Tensor:
        return loss_of(torch.nn.functional.normalize(outputs, dim=-1), draws, source())

    assert torch.autograd.gradcheck(loss, points(4, 6, 3).requires_grad_(), atol=1e-5)


def test_a_translation_costs_its_square() -> None:
    """S_ε(α, α+τ) = |τ|² for the squared cost, and so do W2² and its Gaussian and sorted forms."""
    codes, shift = points(6, 40, 3), torch.tensor([0.3, -0.2, 0.1]).double()
    square = float(shift.square().sum())
    for name in ("entropic", "sharp", "rounded", "gaussian"):
        assert float(LOSSES[name](codes, codes + shift, source())) == pytest.approx(square, abs=1e-8), name
    line = codes[:, :1]
    assert float(SlicedLoss()(line, line + 0.3, source())) == pytest.approx(0.09, abs=1e-12)


def test_energy_loss_is_half_the_energy_distance() -> None:
    x, y = points(7, 8, 2), points(8, 8, 2)
    expected = costs(x, y, "euclidean").mean() - (costs(x, x, "euclidean").mean() + costs(y, y, "euclidean").mean()) / 2
    assert float(EnergyLoss()(x, y, source())) == pytest.approx(expected, abs=1e-12)


def test_imq_mmd_is_its_double_sum() -> None:
    x, y, distance = points(9, 5, 3), points(10, 6, 3), 6.0

    def kernel(p: np.ndarray, q: np.ndarray) -> float:
        square = float(((p - q) ** 2).sum())
        return sum(s * distance / (s * distance + square) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10))

    def mean(p: Tensor, q: Tensor, pairs: list[tuple[int, int]]) -> float:
        return float(np.mean([kernel(array(p)[i], array(q)[j]) for i, j in pairs]))

    across = mean(x, y, list(itertools.product(range(5), range(6))))
    apart = mean(x, x, list(itertools.permutations(range(5), 2))) + mean(
        y, y, list(itertools.permutations(range(6), 2))
    )
    full = mean(x, x, list(itertools.product(range(5), repeat=2))) + mean(
        y, y, list(itertools.product(range(6), repeat=2))
    )
    assert float(imq_mmd(x, y, distance)) == pytest.approx(apart - 2 * across, abs=1e-12)
    assert float(imq_mmd(x, y, distance, unbiased=False)) == pytest.approx(full - 2 * across, abs=1e-12)
    assert float(MMDLoss(distance)(x, y, source())) == float(imq_mmd(x, y, distance))


def test_unbiased_imq_mmd_has_mean_zero_between_samples_of_one_law() -> None:
    values = torch.stack([imq_mmd(points(2 * i, 10, 2), points(2 * i + 1, 10, 2), 4.0) for i in range(300)])
    assert abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(300)


def test_hungarian_is_the_best_of_all_assignments() -> None:
    x, y = points(11, 6, 2), points(12, 6, 2)
    C = costs(x, y)
    best = min(C[range(6), list(order)].mean() for order in itertools.permutations(range(6)))
    assert float(HungarianLoss()(x, y, source())) == pytest.approx(best, abs=1e-12)


def test_in_one_dimension_sorting_is_optimal() -> None:
    x, y = points(13, 50, 1), 2 * points(14, 50, 1)
    hungarian = float(HungarianLoss()(x, y, source()))
    assert float(SlicedLoss()(x, y, source())) == pytest.approx(hungarian, abs=1e-12)


def test_sliced_distance_of_isotropic_gaussians() -> None:
    """Along every unit direction N(0, σ²) and N(<m,θ>, 1): E <m,θ>² + (σ−1)² = |m|²/d + (σ−1)²."""
    dim, count = 4, 10_000
    x, y = 0.5 * points(15, count, dim), points(16, count, dim)
    y = y + torch.tensor([0.6, 0, 0, 0.8]).double()
    found = torch.stack([SlicedLoss()(x, y, source(seed)) for seed in range(20)])
    # 1000 directions: <m,θ>² has standard deviation ~ 0.3.
    assert float(found.mean()) == pytest.approx(1 / dim + 0.25, abs=0.03)


def test_gaussian_loss_is_the_closed_form() -> None:
    x, y = points(17, 30, 3) @ points(18, 3, 3), points(19, 40, 3) + 0.3
    A, B = np.cov(array(x).T, bias=True), np.cov(array(y).T, bias=True)
    root = scipy.linalg.sqrtm(A)
    cross = scipy.linalg.sqrtm(root @ B @ root).real
    means = array(x).mean(0) - array(y).mean(0)
    expected = means @ means + np.trace(A) + np.trace(B) - 2 * np.trace(cross)
    assert float(GaussianLoss()(x, y, source())) == pytest.approx(expected, abs=1e-9)


def test_gaussian_loss_has_finite_gradients_for_collapsed_codes() -> None:
    codes = torch.zeros(8, 5, requires_grad=True)
    GaussianLoss()(codes, points(20, 8, 5).float(), source()).backward()
    assert codes.grad is not None
    assert bool(torch.isfinite(codes.grad).all())


@pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-11])
@pytest.mark.parametrize("shape", [(30, 30), (20, 30)])
def test_rounded_plans_are_feasible(tol: float, shape: tuple[int, int]) -> None:
    """Altschuler, Weed, Rigollet 2017, Lemma 7: exact marginals, so that the cost is at least the optimal one."""
    x, y = points(21, shape[0], 3), points(22, shape[1], 3)
    plan = rounded_plan(sinkdiv.solve(x, y, eps=0.3, tol=tol).plan())
    assert plan.min() > -1e-15
    assert (plan.sum(1) - 1 / shape[0]).abs().max() < 1e-12
    assert (plan.sum(0) - 1 / shape[1]).abs().max() < 1e-12
    if shape[0] == shape[1]:
        C = costs(x, y)
        exact = C[linear_sum_assignment(C)].mean()
        assert float((plan * torch.from_numpy(C)).sum()) >= exact - 1e-12
        loss_of = sinkhorn_loss(0.3, value="sharp", rounding=True, debias="none", tol=tol)
        assert float(loss_of(x, y, source())) == pytest.approx(float((plan * torch.from_numpy(C)).sum()), abs=1e-12)


@pytest.mark.parametrize("shape", [(30, 30), (20, 30)])
@pytest.mark.parametrize("eps", [0.05, 0.5, 10.0])
def test_the_rounded_costs_derivative_is_that_of_the_composition(shape: tuple[int, int], eps: float) -> None:
    """Through `Transport.plan`, which is composed of differentiable potentials, at an accuracy where both are exact."""
    x, y = points(23, shape[0], 3), points(24, shape[1], 3)
    C = torch.from_numpy(costs(x, y)).requires_grad_()
    composed = (rounded_plan(sinkdiv.solve_matrix(C, eps=eps, tol=1e-13).plan()) * C).sum()
    direct = rounded_cost(C, sinkdiv.solve_matrix(C.detach(), eps=eps, tol=1e-13).plan(), eps)
    assert direct.item() == pytest.approx(composed.item(), abs=1e-13)
    ((ours,), (theirs,)) = (torch.autograd.grad(value, C) for value in (direct, composed))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("eps", [2e-3, 0.05, 1.0])
def test_rounded_losses_have_finite_gradients_where_solves_are_hard(eps: float) -> None:
    """Codes in one place, codes that repeat, codes far away: regularisations down to where most of the plan is zero."""
    draws = points(25, 60, 4, sphere=True).float()
    loss_of = sinkhorn_loss(eps, value="sharp", rounding=True)
    for codes in (draws[:1].expand(60, -1), draws.roll(1, 0), 20 + draws):
        codes = codes.clone().requires_grad_()
        loss_of(codes, draws, source()).backward()
        assert codes.grad is not None
        assert bool(codes.grad.isfinite().all())


def test_rounding_a_plan_that_is_feasible_changes_nothing() -> None:
    plan = torch.full((4, 5), 1 / 20, dtype=torch.float64)
    torch.testing.assert_close(rounded_plan(plan), plan, atol=1e-16, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_geodesic_costs_are_squared_angles_with_finite_gradients(dtype: torch.dtype) -> None:
    angles = torch.tensor([0.0, 1e-4, 0.1, 0.1416, 0.1417, 1.0, 3.0, math.pi], dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin()], 1).to(dtype).requires_grad_()
    pole = circle[:1].detach()
    found = geodesic_cost(pole, circle)[0]
    # Cosines know a squared angle to a few units in the last place of 1; near π the angle only to the root of that.
    atol = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(found[:-1].double(), angles[:-1].square(), atol=atol, rtol=20 * atol)
    assert float(found[-1].detach()) == pytest.approx(math.pi**2, rel=1e-3)
    found.sum().backward()
    assert circle.grad is not None
    assert bool(torch.isfinite(circle.grad).all())


def test_options_and_samples_that_do_not_fit_are_refused() -> None:
    for wrong in ({"value": "entropic"}, {"derivative": "unrolled", "iterations": 3}, {"warm_start": True}):
        with pytest.raises(InputError, match="rounding"):
            sinkhorn_loss(0.5, **{"value": "sharp", "rounding": True} | wrong)
    for loss_of in (SlicedLoss(), HungarianLoss()):
        with pytest.raises(ValueError, match="equally many, not 3 and 4"):
            loss_of(points(0, 3, 2), points(1, 4, 2), source())


def test_independent_debiasing_is_right_about_the_variance_of_codes() -> None:
    """In 64 dimensions the divergence of batches prefers codes of little variance; with independent halves it does not.

    Codes s·z against draws, z normal: the mean loss over batches is compared at s = 0.7 and s = 1.
    """
    source = torch.Generator().manual_seed(0)
    codes, draws = torch.randn(2, 24, 128, 64, generator=source)

    def mean_loss(scale: float, debias: str) -> float:
        loss_of = sinkhorn_loss(32.0, debias=debias)
        losses = [loss_of(scale * x, y, source) for x, y in zip(codes, draws, strict=True)]
        return float(torch.stack(losses).mean())

    assert mean_loss(0.7, "self") < mean_loss(1.0, "self")
    assert mean_loss(1.0, "independent") < min(mean_loss(0.7, "independent"), mean_loss(1.3, "independent"))
