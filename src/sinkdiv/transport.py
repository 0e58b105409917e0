"""A solved transport problem, as a user holds it."""

from __future__ import annotations

import torch
from torch import Tensor

from sinkdiv.checks import check_operand
from sinkdiv.costs import FeatureCost
from sinkdiv.differentiable import DifferentiableSolution
from sinkdiv.measures import given_form
from sinkdiv.solvers import Problem, Start, Status
from sinkdiv.solvers.choice import Earlier


class Transport(Earlier):
    """A solved transport problem, or a batch of them: potentials, values, certificate, and the plan as an operator.

    `sinkdiv.solve` and `sinkdiv.solve_matrix` return it. For a single problem values are 0-d tensors, `converged` is a
    bool, `status` a `Status` and `passes` an int; for a batch they are (B,) tensors and a tuple of B statuses. Values,
    potentials and everything of the plan are differentiable in points, cost matrix, weights, operands and the
    parameters of a learned cost. Nothing of the size of the plan is held in memory unless the cost is a matrix.

    Example:
        >>> x, y = torch.rand(50, 2), torch.rand(40, 2)
        >>> t = sinkdiv.solve(x, y, blur=0.1)
        >>> t.converged
        True
        >>> t.plan().shape
        torch.Size([50, 40])
    """

    def __init__(self, solved: DifferentiableSolution) -> None:
        self._solved = solved

    # What was computed, and how well.

    @property
    def value(self) -> Tensor:
        """OT_ε = <P, C> + ε KL(P|abᵀ), 0-d or (B,), in cost units: the dual value at the potentials.

        A lower bound up to rounding, and accurate to second order in the marginal error. It costs no pass; its gradient
        costs one or two.

        Example:
            >>> x = torch.rand(50, 2, requires_grad=True)
            >>> sinkdiv.solve(x, torch.rand(40, 2), blur=0.1).value.backward()
            >>> x.grad.shape
            torch.Size([50, 2])
        """
        return self._given(self._solved.value)

    @property
    def sharp(self) -> Tensor:
        """<P, C> = OT_ε − ε KL(P|abᵀ), 0-d or (B,), in cost units: the cost of the plan alone (Q23).

        One pass at each access. Its gradient solves a linear system, by some passes.

        Example:
            >>> t = sinkdiv.solve(torch.rand(50, 2), torch.rand(40, 2), blur=0.1)
            >>> bool(t.sharp < t.value)
            True
        """
        return self._given(self._solved.sharp)

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """An interval (lower, upper) that contains OT_ε, each 0-d or (B,), in float64 and cost units.

        Four float64 passes at each access. It holds whether the solve has converged or not.

        Example:
            >>> lower, upper = sinkdiv.solve(torch.rand(50, 2), torch.rand(40, 2), blur=0.1).bounds
            >>> bool(lower <= upper)
            True
        """
        lower, upper = self._solved.bounds()
        return self._unbatched(lower), self._unbatched(upper)

    @property
    def unregularised_bounds(self) -> tuple[Tensor, Tensor]:
        """An interval (lower, upper) for the cost of transport without regularisation: the optimum at ε = 0.

        Of the same weights and costs, with marginals as hard or soft as here; each 0-d or (B,), in float64 and cost
        units, by seven float64 passes at each access. It shrinks with ε. ``upper`` may be +∞ where pairs are forbidden.

        Example:
            >>> x = torch.rand(50, 2)
            >>> lower, upper = sinkdiv.solve(x, x + 1, blur=0.01).unregularised_bounds
            >>> bool(lower <= 2.0 + 1e-5) and bool(upper >= 2.0 - 1e-5)
            True
        """
        lower, upper = self._solved.unregularised_bounds()
        return self._unbatched(lower), self._unbatched(upper)

    @property
    def marginal_error(self) -> Tensor:
        """The plan's L1 marginal error relative to the mass, rows and columns added up, 0-d or (B,); it has no unit.

        Example:
            >>> t = sinkdiv.solve(torch.rand(50, 2), torch.rand(40, 2), blur=0.1, tol=1e-4)
            >>> bool(t.marginal_error <= 1e-4)
            True
        """
        return self._given(self._solved.solution.marginal_error)

    @property
    def converged(self) -> bool | Tensor:
        """Whether a test has found the marginal error below the tolerance; with ``tol=None`` there is no test.

        A bool, or for a batch a bool tensor (B,).

        Example:
            >>> sinkdiv.solve(torch.rand(50, 2), torch.rand(40, 2), blur=0.1).converged
            True
        """
        flags = [status is Status.CONVERGED for status in self._solved.solution.status]
        return torch.tensor(flags, device=self._solved.problem.a.device) if self._is_batch else flags[0]

    @property
    def status(self) -> Status | tuple[Status, ...]:
        """How the solve ended, a `Status` or for a batch a tuple of B; ``str(status)`` is a sentence.

        Example:
            >>> print(sinkdiv.solve(torch.rand(50, 2), torch.rand(40, 2), blur=0.1).status)
            converged: the marginal error is below the tolerance
        """
        return self._solved.solution.status if self._is_batch else self._solved.solution.status[0]

    @property
    def passes(self) -> int | Tensor:
        """Passes over all pairs that were spent, those of the annealing included: an int, or for a batch (B,).

        Example:
            >>> t = sinkdiv.solve(torch.rand(50, 2), torch.rand(40, 2), blur=0.1)
            >>> t.passes < 2000
            True
        """
        return self._solved.solution.passes if self._is_batch else int(self._solved.solution.passes)

    @property
    def history(self) -> tuple[tuple[int, float], ...]:
        """(passes, marginal error) at each convergence test at the target ε; the largest error of the batch.

        Example:
            >>> t = sinkdiv.solve(torch.rand(50, 2), torch.rand(40, 2), blur=0.1, tol=1e-3)
            >>> passes, error = t.history[-1]
            >>> error <= 1e-3
            True
        """
        return self._solved.solution.history

    # The potentials.

    @property
    def f(self) -> Tensor:
        """The potential of the first side, (n,) or (B, n), in cost units.

        Hard marginals leave a constant free, which is chosen so that <a, f> = <b, g>. No pass.

        Example:
            >>> sinkdiv.solve(torch.rand(50, 2), torch.rand(40, 2), blur=0.1).f.shape
            torch.Size([50])
        """
        return self._given(self._solved.f())

    @property
    def g(self) -> Tensor:
        """The potential of the second side, (m,) or (B, m), in cost units. See `f`.

        Example:
            >>> sinkdiv.solve(torch.rand(50, 2), torch.rand(40, 2), blur=0.1).g.shape
            torch.Size([40])
        """
        return self._given(self._solved.g())

    def potentials_at(self, points: Tensor, side: int = 0) -> Tensor:
        """The potential f or g at other points, which the softmin extends to the whole space, in cost units: one pass.

        f(z) = −ε log Σ_j b_j exp((g_j − c(z, y_j))/ε).

        Args:
            points: (k, d) or (B, k, d).
            side: 0 for f, 1 for g.

        Returns:
            (k,) or (B, k), differentiable in the points too.

        Raises:
            ValueError: if the problem was given as a matrix, or the points do not fit.

        Example:
            >>> t = sinkdiv.solve(torch.rand(50, 2), torch.rand(40, 2), blur=0.1)
            >>> t.potentials_at(torch.rand(7, 2)).shape
            torch.Size([7])
        """
        self._check_points("potentials_at")
        cost = self._solved.settings.cost
        assert cost is not None, "points have a cost between them"
        dimension = None if isinstance(cost, FeatureCost) else self._solved.inputs.tensors[2].shape[-1]
        features = cost.features("points", self._operand("points", points, None, dimension))
        return self._given(self._solved.potential_at(features, _check_side(side)))

    # The plan, as an operator.

    def apply(self, v: Tensor) -> Tensor:
        """P v: one pass, no matrix is formed.

        Args:
            v: (m,), (m, k), or for a batch (B, m), (B, m, k).

        Returns:
            (n,), (n, k), or (B, n), (B, n, k).

        Raises:
            ValueError: if v does not fit.

        Example:
            >>> t = sinkdiv.solve(torch.rand(50, 2), torch.rand(40, 2), blur=0.1)
            >>> t.apply(torch.rand(40, 3)).shape
            torch.Size([50, 3])
        """
        return self._product("v", v, side=0)

    def apply_transpose(self, u: Tensor) -> Tensor:
        """Pᵀ u: one pass, no matrix is formed.

        Args:
            u: (n,), (n, k), or for a batch (B, n), (B, n, k).

        Returns:
            (m,), (m, k), or (B, m), (B, m, k).

        Raises:
            ValueError: if u does not fit.

        Example:
            >>> t = sinkdiv.solve(torch.rand(50, 2), torch.rand(40, 2), blur=0.1)
            >>> t.apply_transpose(torch.rand(50)).shape
            torch.Size([40])
        """
        return self._product("u", u, side=1)

    def marginals(self) -> tuple[Tensor, Tensor]:
        """The plan's actual row sums, (n,) or (B, n), and column sums, (m,) or (B, m), in the unit of weights. No pass.

        Example:
            >>> rows, columns = sinkdiv.solve(torch.rand(50, 2), torch.rand(40, 2), blur=0.1).marginals()
            >>> rows.shape, columns.shape
            (torch.Size([50]), torch.Size([40]))
        """
        return self._given(self._solved.marginal(0)), self._given(self._solved.marginal(1))

    def barycentric_map(self) -> Tensor:
        """T(x_i) = Σ_j P_ij y_j / Σ_j P_ij, the mean of where x_i is sent: (n, d) or (B, n, d). One pass.

        A point of weight zero has no mean and gets NaN.

        Raises:
            ValueError: if the cost is a matrix, learned or of directions; use ``apply`` on your own targets.

        Example:
            >>> t = sinkdiv.solve(torch.rand(50, 2), torch.rand(40, 2), blur=0.1)
            >>> t.barycentric_map().shape
            torch.Size([50, 2])
        """
        self._check_points("barycentric_map")
        cost = self._solved.settings.cost
        if cost is not None and cost.makes_features:
            raise ValueError("barycentric_map would average features: use apply(y), divided by marginals()[0], instead")
        return self._given(self._solved.barycentric_map())

    def plan(self) -> Tensor:
        """The plan P as a matrix, (n, m) or (B, n, m): memory O(nm).

        Example:
            >>> t = sinkdiv.solve(torch.rand(50, 2), torch.rand(40, 2), blur=0.1)
            >>> round(float(t.plan().sum()), 2)
            1.0
        """
        return self._given(self._solved.plan())

    def __repr__(self) -> str:
        problem, solution = self._solved.problem, self._solved.solution
        batch, n, m = problem.geometry.shape
        count = f"{batch} problems " if self._is_batch else ""
        done = sum(status is Status.CONVERGED for status in solution.status)
        state = ("converged" if done else "not converged") if batch == 1 else f"{done} of {batch} converged"
        state = state if self._solved.settings.limits.tested else "not tested"
        error, passes = float(solution.marginal_error.max()), int(solution.passes.max())
        least, most = min(problem.eps), max(problem.eps)
        eps = f"{least:g}" if least == most else f"{least:g} to {most:g}"
        return f"Transport({count}{n}×{m}, eps={eps}, {state}, error {error:.1e}, {passes} passes)"

    # Parts.

    def _start_for(self, problem: Problem) -> Start | None:
        return self._solved._start_for(problem)

    @property
    def _is_batch(self) -> bool:
        return self._solved.inputs.batched

    def _given(self, tensor: Tensor) -> Tensor:
        return given_form(tensor, self._solved.inputs)

    def _unbatched(self, tensor: Tensor) -> Tensor:
        return tensor if self._is_batch else tensor.squeeze(0)

    def _check_points(self, asker: str) -> None:
        if not self._solved.has_points:
            raise ValueError(f"{asker} needs points, but this problem was given as a cost matrix")

    def _product(self, name: str, operand: Tensor, side: int) -> Tensor:
        check_operand(name, operand)
        flat = operand.ndim == 1 + self._is_batch
        count = self._solved.problem.geometry.shape[2 - side]
        columns = self._operand(name, operand.unsqueeze(-1) if flat else operand, count, None)
        product = self._given(self._solved.product(columns, side))
        return product.squeeze(-1) if flat else product

    def _operand(self, name: str, tensor: Tensor, rows: int | None, columns: int | None) -> Tensor:
        """A caller's (rows, columns) matrix, one for each problem, brought to (B, rows, columns)."""
        check_operand(name, tensor)
        geometry = self._solved.problem.geometry
        batch = [geometry.shape[0]] if self._is_batch else []
        expected = (*batch, rows, columns)
        fits = tensor.ndim == len(expected) and all(
            want is None or have == want for have, want in zip(tensor.shape, expected, strict=True)
        )
        if not fits:
            layout = ", ".join("k" if size is None else str(size) for size in expected)
            raise ValueError(f"{name} must have shape ({layout}), not {tuple(tensor.shape)}")
        tensor = tensor.to(geometry.dtype)
        return tensor if self._is_batch else tensor.unsqueeze(0)


def _check_side(side: int) -> int:
    if side not in (0, 1):
        raise ValueError(f"side must be 0 (rows) or 1 (columns), not {side!r}")
    return side
