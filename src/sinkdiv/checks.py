"""Checks of single tensors, and whether anybody may look at their numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sinkdiv.transforms import check_transforms


def is_captured(tensor: Tensor) -> bool:
    """Whether what is done with this tensor is being captured into a CUDA graph, where no number may be read."""
    return tensor.is_cuda and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def shape_text(tensor: Tensor) -> str:
    """The shape as it is written in messages."""
    return str(tuple(tensor.shape))


def check_floating(name: str, tensor: Any, layout: str = "") -> None:
    """Refuse what is no tensor of floating-point numbers; ``layout`` says in the message what was expected."""
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor{layout}, not {type(tensor).__name__}")
    if not tensor.is_floating_point():
        raise ValueError(f"{name} must hold floating-point numbers, not {tensor.dtype}")


def check_array(name: str, tensor: Any, dims: tuple[int, ...], layout: str) -> None:
    """Refuse what is no floating-point tensor, not empty, of one of these numbers of dimensions."""
    check_floating(name, tensor, f" of shape {layout}")
    if tensor.ndim not in dims:
        raise ValueError(f"{name} must have shape {layout}, not {shape_text(tensor)}")
    if tensor.numel() == 0:
        raise ValueError(f"{name} is empty: its shape is {shape_text(tensor)}")


def check_finite(name: str, tensor: Tensor) -> None:
    """Refuse NaN and infinite entries."""
    if is_captured(tensor):
        return
    tensor = tensor.detach()
    # A finite sum has finite terms, and is all that a good input costs; finite terms may overflow in their sum.
    if not math.isfinite(float(tensor.sum())) and not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} holds NaN or infinite entries (its shape is {shape_text(tensor)})")


def check_companion(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Refuse another dtype or device than ``other``'s."""
    if tensor.dtype != other.dtype:
        raise ValueError(f"{name} must have {other_name}'s dtype {other.dtype}, not {tensor.dtype}")
    if tensor.device != other.device:
        raise ValueError(f"{name} must be on {other_name}'s device {other.device}, not {tensor.device}")


def check_operand(name: str, tensor: Any) -> None:
    """Check an operand that is no sample: a floating-point tensor without NaN or infinite entries.

    Raises:
        ValueError: naming the argument.
        NotImplementedError: if it is batched by `torch.func.vmap`.
    """
    check_floating(name, tensor)
    check_transforms(tensor)
    check_finite(name, tensor)
