"""Numbers out of the transforms of `torch.func`.

Inside a transform every operation, even on a tensor that takes no part in it, returns a wrapper without memory of its
own, which kernels cannot read. Solvers and kernels therefore run outside: in the forward of an autograd.Function, which
PyTorch calls with the tensors themselves.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch._C._functorch import TransformType
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.autograd import forward_ad

VMAP = "vmap over samples is not implemented; give the problems as one batch (B, n, d) instead"

TWICE_FORWARD = (
    "forward mode within forward mode is not implemented: PyTorch (2.13) would lose tangents without a word; "
    "take torch.func.jvp of torch.func.grad (or torch.func.hessian) instead"
)

DUAL = "dual tensors of torch.autograd.forward_ad are not implemented; use torch.func.jvp instead"

Tensors = tuple[Tensor, ...]

Partials = tuple[Tensor | None, ...]

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


def untraced(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function under `torch.compiler.disable`, which loads the compiler: so only once a program is compiled."""
    disabled: Callable[Arguments, Result] | None = None

    @functools.wraps(function)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        nonlocal disabled
        if not torch.compiler.is_compiling():
            return function(*args, **kwargs)
        if disabled is None:
            disabled = torch.compiler.disable(function)
        return disabled(*args, **kwargs)

    return wrapper


@untraced
def outside(function: Callable[..., Result], *tensors: Tensor) -> Result:
    """function(*tensors) on detached tensors, outside all transforms.

    Raises:
        NotImplementedError: if a tensor is batched by `torch.func.vmap`.
    """
    if not retrieve_all_functorch_interpreters():
        with torch.no_grad():
            return function(*(tensor.detach() for tensor in tensors))
    results: list[Result] = []
    _Outside.apply(lambda *numbers: results.append(function(*numbers)), *tensors)
    return results[0]


@untraced
def check_transforms(*arguments: Any) -> None:
    """Refuse the transforms that derivatives would not survive; arguments that are no tensors are not looked at.

    Raises:
        NotImplementedError: naming what to do instead.
    """
    tensors = [one for one in arguments if isinstance(one, Tensor)]
    levels = retrieve_all_functorch_interpreters()
    if levels and any(torch.func.debug_unwrap(one).shape != one.shape for one in tensors):
        raise NotImplementedError(VMAP)
    if sum(level.key() == TransformType.Jvp for level in levels) > 1:
        raise NotImplementedError(TWICE_FORWARD)
    if not levels and any(forward_ad.unpack_dual(one).tangent is not None for one in tensors):
        raise NotImplementedError(DUAL)


def is_differentiated_again() -> bool:
    """Whether what a backward pass computes may itself be differentiated.

    A transform's does, whatever the grad mode around it: `torch.func` takes no notice of an outer ``torch.no_grad()``.
    """
    return torch.is_grad_enabled() or bool(retrieve_all_functorch_interpreters())


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """A region without autocast, in which matrix products of tensors like this one keep their dtype."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


class UnbatchedFunction(torch.autograd.Function):
    """A Function of a solved problem, whose solver has already run on the samples' numbers: no rule could batch it."""

    def __init_subclass__(cls) -> None:
        # PyTorch asks for the signature of `forward` at each call, which takes longer than all else that it does.
        cls.forward.__signature__ = inspect.signature(cls.forward)  # type: ignore[attr-defined]

    @staticmethod
    def vmap(*_: Any) -> Any:
        raise NotImplementedError(VMAP)


class _Outside(UnbatchedFunction):
    """Runs a function for what it does; there is no result to differentiate."""

    @staticmethod
    def forward(function: Callable[..., None], *tensors: Tensor) -> None:
        function(*(tensor.detach() for tensor in tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: None) -> None:
        pass

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> None:
        return None


def saved(ctx: Any) -> Tensors:
    """What a Function saved, fit to be given to another Function.

    ``pull`` of ``_, pull = torch.func.vjp(...)`` runs when the level of the transform is gone. PyTorch's own operations
    take the saved tensors out of that level; an autograd.Function does not, and gave wrong second derivatives (torch
    2.13). So each passes through such an operation first.
    """
    return tuple(tensor.view_as(tensor) for tensor in ctx.saved_tensors)


def pushed_forward(function: Callable[..., Any], inputs: Tensors, tangents: tuple[Tensor | None, ...]) -> Any:
    """How function(*inputs) changes along tangents, None where they are zero."""
    steps = tuple(torch.zeros_like(o) if t is None else t for o, t in zip(inputs, tangents, strict=True))
    return torch.func.jvp(function, tuple(inputs), steps)[1]


def pulled_back(
    function: Callable[..., Any], inputs: Tensors, wanted: tuple[bool, ...], cotangent: Tensor | Tensors
) -> Partials:
    """The derivatives of <function(*inputs), cotangent> with respect to the wanted inputs, None for the others."""

    def of_wanted(*replaced: Tensor) -> Any:
        fresh = iter(replaced)
        return function(*(next(fresh) if one else old for one, old in zip(wanted, inputs, strict=True)))

    chosen = (tensor for one, tensor in zip(wanted, inputs, strict=True) if one)
    grads = iter(torch.func.vjp(of_wanted, *chosen)[1](cotangent))
    return tuple(next(grads) if one else None for one in wanted)
