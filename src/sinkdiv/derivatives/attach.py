"""Results that a solver found, with the derivatives that theory gives them.

The solver never sees a graph. What it found enters the caller's graph here, at every level of `torch.func` too: first
derivatives of values by the fastest way, all others by differentiating what the result is as a function of its inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from sinkdiv.transforms import (
    Partials,
    Tensors,
    UnbatchedFunction,
    is_differentiated_again,
    pulled_back,
    pushed_forward,
    saved,
)


class Differentiable(Protocol):
    """A value (B,) that knows its partial derivatives, batched; None where they are not wanted."""

    def partials(self, wanted: tuple[bool, ...]) -> Partials:
        """Numbers, at the inputs that were solved."""

    def differentiable_partials(self, wanted: tuple[bool, ...], inputs: Tensors) -> Partials:
        """The same as functions of ``inputs``, with derivatives of their own."""

    def hessian_product(self, directions: Partials, wanted: tuple[bool, ...]) -> Partials | None:
        """How the partials change along directions, None where zero, in numbers; None if that is not known."""


def attach_value(value: Tensor, solved: Differentiable, *inputs: Tensor) -> Tensor:
    """``value`` (B,), with the derivatives that ``solved`` knows with respect to ``inputs``."""
    result: Tensor = _Value.apply(value, solved, *inputs)
    return result


def attach_result(result: Tensor, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``result``, which is function(*inputs) up to the solver's error, with the function's derivatives."""
    attached: Tensor = _Result.apply(result, function, *inputs)
    return attached


class _Value(UnbatchedFunction):
    """A value (B,) of a solved problem."""

    @staticmethod
    def forward(value: Tensor, solved: Differentiable, *inputs: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.solved, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Partials:
        wanted = tuple(ctx.needs_input_grad[2:])
        again = is_differentiated_again()
        partials = _partials(ctx.solved, wanted, saved(ctx)) if again else ctx.solved.partials(wanted)
        return None, None, *(None if one is None else _spread(cotangent, one) * one for one in partials)

    @staticmethod
    def jvp(ctx: Any, *given: Tensor | None) -> Tensor:
        tangents = given[2:]
        wanted = tuple(tangent is not None for tangent in tangents)
        partials = _partials(ctx.solved, wanted, saved(ctx))
        moved = [
            (partial * tangent).flatten(1).sum(1)
            for partial, tangent in zip(partials, tangents, strict=True)
            if partial is not None and tangent is not None
        ]
        return torch.stack(moved).sum(0)


def _partials(solved: Differentiable, wanted: tuple[bool, ...], inputs: Tensors) -> Partials:
    """The wanted partials, with derivatives of every order."""
    found: Tensors = _WantedPartials.apply(solved, wanted, *inputs)
    numbers = iter(found)
    return tuple(next(numbers) if one else None for one in wanted)


class _WantedPartials(UnbatchedFunction):
    """The wanted partial derivatives of a value, as functions of the inputs."""

    @staticmethod
    def forward(solved: Differentiable, wanted: tuple[bool, ...], *inputs: Tensor) -> Tensors:
        return tuple(one for one in solved.partials(wanted) if one is not None)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        ctx.solved, ctx.wanted, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Partials:
        wanted = tuple(ctx.needs_input_grad[2:])
        if not is_differentiated_again():
            left = iter(cotangents)
            directions = tuple(next(left) if one else None for one in ctx.wanted)
            products = ctx.solved.hessian_product(directions, wanted)  # the Hessian is symmetric
            if products is not None:
                return None, None, *products
        return None, None, *pulled_back(_function(ctx), saved(ctx), wanted, cotangents)

    @staticmethod
    def jvp(ctx: Any, *given: Tensor | None) -> Tensors:
        moved: Tensors = pushed_forward(_function(ctx), saved(ctx), given[2:])
        return moved


def _function(ctx: Any) -> Callable[..., Tensors]:
    def partials(*inputs: Tensor) -> Tensors:
        return tuple(one for one in ctx.solved.differentiable_partials(ctx.wanted, inputs) if one is not None)

    return partials


class _Result(UnbatchedFunction):
    """A result of a solved problem, as a function of the problem's inputs."""

    @staticmethod
    def forward(result: Tensor, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        return result.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.function, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Partials:
        wanted = tuple(ctx.needs_input_grad[2:])
        return None, None, *pulled_back(ctx.function, saved(ctx), wanted, cotangent)

    @staticmethod
    def jvp(ctx: Any, *given: Tensor | None) -> Tensor:
        moved: Tensor = pushed_forward(ctx.function, saved(ctx), given[2:])
        return moved


def _spread(cotangent: Tensor, partial: Tensor) -> Tensor:
    """A cotangent (B,) in the shape of a partial derivative (B, ...)."""
    return cotangent.view(-1, *[1] * (partial.ndim - 1))
