"""One batch over several processes: a loss of the whole batch, with its exact gradient in every process."""

from typing import Any

import torch
from torch import Tensor, distributed


class _GlobalBatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.rank, ctx.count = distributed.get_rank(), len(rows)
        parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        own = gradient[ctx.rank * ctx.count : (ctx.rank + 1) * ctx.count]
        return own * distributed.get_world_size()


def global_batch(rows: Tensor) -> Tensor:
    """This process' rows (n, d) to the rows of all processes (world·n, d), in the order of their ranks.

    Every process must go on to compute the same scalar from them. It then has the gradient with respect to its own
    rows at hand, so nothing is sent on the way back; the factor `world` undoes the mean that DistributedDataParallel
    takes over processes, whose sum is the gradient of the one loss. With one process this is the identity.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return rows
    gathered: Tensor = _GlobalBatch.apply(rows)
    return gathered


def process_rank() -> int:
    """This process' number among those that share a batch."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def process_count() -> int:
    """How many processes share a batch."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def own_part(rows: Tensor) -> Tensor:
    """This process' rows (n, d) of the rows of all processes (world·n, d): `global_batch` backwards."""
    return rows.chunk(process_count())[process_rank()]
