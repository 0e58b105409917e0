"""A solved Sinkhorn divergence, as a user holds it."""

from __future__ import annotations

from torch import Tensor

from sinkdiv.debiased import DebiasedSolution
from sinkdiv.measures import given_form
from sinkdiv.solvers import Problem, Start
from sinkdiv.solvers.choice import Earlier
from sinkdiv.transport import Transport


class Divergence(Earlier):
    """The three solved problems of a Sinkhorn divergence, and what they say of S_ε.

    `sinkdiv.solve_divergence` returns it. For a single problem values are 0-d tensors, for a batch (B,).

    Example:
        >>> x, y = torch.rand(50, 2), torch.rand(40, 2)
        >>> d = sinkdiv.solve_divergence(x, y, blur=0.1)
        >>> lower, upper = d.bounds
        >>> bool(lower <= upper)
        True
    """

    def __init__(self, solved: DebiasedSolution) -> None:
        self._solved = solved
        self._ab, self._aa, self._bb = (Transport(one) for one in solved.parts)

    @property
    def ab(self) -> Transport:
        """The problem between the two samples.

        Example:
            >>> d = sinkdiv.solve_divergence(torch.rand(50, 2), torch.rand(40, 2), blur=0.1)
            >>> d.ab.plan().shape
            torch.Size([50, 40])
        """
        return self._ab

    @property
    def aa(self) -> Transport:
        """The problem of the first sample with itself.

        Example:
            >>> d = sinkdiv.solve_divergence(torch.rand(50, 2), torch.rand(40, 2), blur=0.1)
            >>> bool((d.aa.f == d.aa.g).all())
            True
        """
        return self._aa

    @property
    def bb(self) -> Transport:
        """The problem of the second sample with itself.

        Example:
            >>> d = sinkdiv.solve_divergence(torch.rand(50, 2), torch.rand(40, 2), blur=0.1)
            >>> d.bb.f.shape
            torch.Size([40])
        """
        return self._bb

    @property
    def value(self) -> Tensor:
        """S_ε = OT_ε(α,β) − ½ OT_ε(α,α) − ½ OT_ε(β,β), and ε/2 (m_α − m_β)² if the marginals are soft.

        0-d or (B,), in cost units, differentiable in points and weights. It costs no pass; its gradient costs one or
        two for each of the three problems.

        Example:
            >>> y = torch.rand(40, 2, requires_grad=True)
            >>> sinkdiv.solve_divergence(torch.rand(50, 2), y, blur=0.1).value.backward()
            >>> y.grad.shape
            torch.Size([40, 2])
        """
        return given_form(self._solved.value, self._solved.ab.inputs)

    @property
    def sharp(self) -> Tensor:
        """The same combination of the plans' costs <P, C>, 0-d or (B,), in cost units: three passes at each access.

        Example:
            >>> sinkdiv.solve_divergence(torch.rand(50, 2), torch.rand(40, 2), blur=0.1).sharp.shape
            torch.Size([])
        """
        return given_form(self._solved.sharp, self._solved.ab.inputs)

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """An interval (lower, upper) that contains S_ε, each 0-d or (B,), in float64 and cost units.

        Twelve float64 passes at each access. It holds whether the solves have converged or not.

        Example:
            >>> lower, upper = sinkdiv.solve_divergence(torch.rand(50, 2), torch.rand(40, 2), blur=0.1).bounds
            >>> bool(lower <= upper)
            True
        """
        lower, upper = self._solved.bounds()
        return (lower, upper) if self._solved.ab.inputs.batched else (lower.squeeze(0), upper.squeeze(0))

    @property
    def converged(self) -> bool | Tensor:
        """Whether tests have found that all three problems met the tolerance: a bool, or for a batch a tensor (B,).

        Example:
            >>> sinkdiv.solve_divergence(torch.rand(50, 2), torch.rand(40, 2), blur=0.1).converged
            True
        """
        return self.ab.converged & self.aa.converged & self.bb.converged

    def __repr__(self) -> str:
        return f"Divergence(\n  ab={self.ab!r},\n  aa={self.aa!r},\n  bb={self.bb!r},\n)"

    def _start_for(self, problem: Problem) -> Start | None:
        return self.ab._start_for(problem)
