"""A cost that is any function of two clouds."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sinkdiv import checks
from sinkdiv.costs.point_costs import PointCost


class FunctionCost(PointCost):
    """Any function of two clouds that returns their cost matrix; the matrix is held in memory."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(None)
        self.function = function

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """The costs (n, m) or (B, n, m) between x (n, d) or (B, n, d) and y (m, d) or (B, m, d).

        Raises:
            ValueError: if the function returned something else.
        """
        name, shape = "what the cost function returned", (*x.shape[:-1], y.shape[-2])
        C = self.function(x, y)
        checks.check_operand(name, C)
        if tuple(C.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, not {checks.shape_text(C)}")
        return C
