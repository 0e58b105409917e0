"""Reductions over pairs that can be differentiated to any order, forwards and backwards, in memory O(n + m).

A reduction is given by what it does with one tile of rows. Its derivative does the derivative of that with the same
tiles, so it is a reduction again, and nothing of the size n × m outlives a tile: each derivative forms the tiles anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sinkdiv.kernels.reference import row_blocks
from sinkdiv.transforms import Tensors, full_precision, saved


@dataclass(frozen=True)
class Reduction:
    """``function(*rows, *shared) -> (*row outputs, *sums)`` on a tile.

    The first ``rows`` inputs, (B, n, ...), are cut into tiles along their second axis, the others are given whole; the
    first ``row_outputs`` results are put together along that axis, the others added up. ``width`` is how many numbers a
    tile holds for one row of one problem.
    """

    function: Callable[..., Tensors]
    rows: int
    row_outputs: int
    width: int

    def __call__(self, *inputs: Tensor) -> Tensors:
        result: Tensors = _Streamed.apply(self, *inputs)
        return result

    def run(self, inputs: Tensors) -> Tensors:
        rows, shared = inputs[: self.rows], inputs[self.rows :]
        batch, count = rows[0].shape[:2]
        with full_precision(rows[0]):
            parts = [
                self.function(*(tensor[:, block] for tensor in rows), *shared)
                for block in row_blocks(batch, count, self.width, rows[0].device)
            ]
        if len(parts) == 1:
            return parts[0]
        joined = (torch.cat(pieces, 1) for pieces in list(zip(*parts, strict=True))[: self.row_outputs])
        added = (torch.stack(pieces).sum(0) for pieces in list(zip(*parts, strict=True))[self.row_outputs :])
        return *joined, *added

    def pulled_back(self, wanted: tuple[bool, ...]) -> Reduction:
        """(*rows, *their cotangents, *shared, *their cotangents) -> cotangents of the wanted inputs."""

        def function(*tensors: Tensor) -> Tensors:
            rows, row_cotangents, shared, sum_cotangents = _cut(tensors, self.rows, self.row_outputs, len(wanted))
            chosen, of_chosen = _restricted(self.function, (*rows, *shared), wanted)
            grads: Tensors = torch.func.vjp(of_chosen, *chosen)[1]((*row_cotangents, *sum_cotangents))
            return grads

        return Reduction(function, self.rows + self.row_outputs, sum(wanted[: self.rows]), self.width)

    def pushed_forward(self, moving: tuple[bool, ...]) -> Reduction:
        """(*rows, *tangents of those that move, *shared, *tangents of those that move) -> tangents of the results."""
        moving_rows = sum(moving[: self.rows])

        def function(*tensors: Tensor) -> Tensors:
            rows, row_tangents, shared, shared_tangents = _cut(tensors, self.rows, moving_rows, len(moving))
            chosen, of_chosen = _restricted(self.function, (*rows, *shared), moving)
            # PyTorch gives tangents the layout of what they belong to and writes to them: nothing may be expanded.
            at, steps = (
                tuple(tensor.contiguous() for tensor in part) for part in (chosen, (*row_tangents, *shared_tangents))
            )
            tangents: Tensors = torch.func.jvp(of_chosen, at, steps)[1]
            return tangents

        return Reduction(function, self.rows + moving_rows, self.row_outputs, self.width)

    def vectorised(self, batched: tuple[bool, ...]) -> Reduction:
        """The same for inputs of which some carry one more, last, axis; all results carry it."""
        axes = tuple(-1 if one else None for one in batched)
        return Reduction(torch.vmap(self.function, axes, -1), self.rows, self.row_outputs, self.width)


class _Streamed(torch.autograd.Function):
    """A reduction, with its derivatives."""

    @staticmethod
    def forward(reduction: Reduction, *inputs: Tensor) -> Tensors:
        return reduction.run(inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        ctx.reduction, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        reduction, inputs, wanted = ctx.reduction, saved(ctx), tuple(ctx.needs_input_grad[1:])
        rows, shared = inputs[: reduction.rows], inputs[reduction.rows :]
        row_cotangents, sum_cotangents = cotangents[: reduction.row_outputs], cotangents[reduction.row_outputs :]
        grads = iter(reduction.pulled_back(wanted)(*rows, *row_cotangents, *shared, *sum_cotangents))
        return None, *(next(grads) if one else None for one in wanted)

    @staticmethod
    def jvp(ctx: Any, *given: Tensor | None) -> Tensors:
        reduction, inputs, tangents = ctx.reduction, saved(ctx), given[1:]
        moving = tuple(tangent is not None for tangent in tangents)
        rows, shared = inputs[: reduction.rows], inputs[reduction.rows :]
        row_tangents, shared_tangents = (
            [tangent for tangent in part if tangent is not None]
            for part in (tangents[: reduction.rows], tangents[reduction.rows :])
        )
        result: Tensors = reduction.pushed_forward(moving)(*rows, *row_tangents, *shared, *shared_tangents)
        return result

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], reduction: Reduction, *inputs: Tensor
    ) -> tuple[Tensors, tuple[int, ...]]:
        dims = in_dims[1:]
        moved = (t if dim is None else t.movedim(dim, -1) for t, dim in zip(inputs, dims, strict=True))
        results = reduction.vectorised(tuple(dim is not None for dim in dims))(*moved)
        return results, (-1,) * len(results)


def _cut(tensors: Tensors, rows: int, more_rows: int, inputs: int) -> tuple[Tensors, Tensors, Tensors, Tensors]:
    """(*rows, *more rows, *shared, *more) taken apart; ``inputs`` counts rows and shared together."""
    first, second, third = rows, rows + more_rows, inputs + more_rows
    return tensors[:first], tensors[first:second], tensors[second:third], tensors[third:]


def _restricted(
    function: Callable[..., Tensors], inputs: Tensors, chosen: tuple[bool, ...]
) -> tuple[Tensors, Callable[..., Tensors]]:
    """The chosen inputs, and the function of these alone."""

    def of_chosen(*replaced: Tensor) -> Tensors:
        fresh = iter(replaced)
        return function(*(next(fresh) if one else old for one, old in zip(chosen, inputs, strict=True)))

    return tuple(tensor for one, tensor in zip(chosen, inputs, strict=True) if one), of_chosen
