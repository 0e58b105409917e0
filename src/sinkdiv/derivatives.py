"""How a solved problem is differentiated.

The envelope theorem: at the optimum the potentials do not contribute to first order, so the entropic value's
derivative is that of the dual objective with its potentials held fixed. What has no correct derivative here refuses to
be differentiated; nothing is detached in silence.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

SECOND_ORDER = (
    "the entropic value can be differentiated once; second derivatives are not implemented. "
    "Use finite differences of the gradient"
)


class Differentiable(Protocol):
    """A solved problem that knows the partial derivatives of its dual objective."""

    def partials(self, wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        """Derivatives of the value (B,) with respect to (a, b, *cost inputs), None where not wanted."""


class _EntropicValue(torch.autograd.Function):
    """The value (B,) of a solved problem, with the envelope derivative."""

    @staticmethod
    def forward(value: Tensor, solved: Differentiable, *inputs: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.solved, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        with torch.no_grad():
            partials = ctx.solved.partials(tuple(ctx.needs_input_grad[2:]))
        grads = [
            None if partial is None else grad_value.view(-1, *[1] * (partial.ndim - 1)) * partial
            for partial in partials
        ]
        if torch.is_grad_enabled():
            grads = [None if grad is None else refuse_gradient(grad, SECOND_ORDER, *inputs) for grad in grads]
        return None, None, *grads


class _Refusal(torch.autograd.Function):
    """The identity, whose derivative does not exist here."""

    @staticmethod
    def forward(tensor: Tensor, message: str, *inputs: Tensor) -> Tensor:
        return tensor.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.message = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        raise NotImplementedError(ctx.message)


def entropic_value(value: Tensor, solved: Differentiable, *inputs: Tensor) -> Tensor:
    """``value`` (B,), differentiable with respect to ``inputs`` = (a, b, *cost inputs) by the envelope theorem.

    Sources: F19 §3.2; `sinkdiv.transport` has the formulas.
    """
    result: Tensor = _EntropicValue.apply(value, solved, *inputs)
    return result


def refuse_gradient(tensor: Tensor, message: str, *inputs: Tensor) -> Tensor:
    """``tensor`` as if it depended on ``inputs``, but raising NotImplementedError(message) when differentiated."""
    result: Tensor = _Refusal.apply(tensor, message, *inputs)
    return result
