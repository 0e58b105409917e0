"""What training, sampling and reports need of a model, whichever it is."""

import abc
import copy
import math
from typing import Any, Self

import lightning
import torch
from torch import Tensor

from sinkdiv.generative.config import RunConfig
from sinkdiv.generative.seeds import Stream


class Model(lightning.LightningModule, abc.ABC):
    """A network that turns draws from a distribution into images.

    Args:
        config: the run's settings.
        total_steps: optimiser steps of the whole run; the learning rate falls along half a cosine to zero there.
    """

    def __init__(self, config: RunConfig, total_steps: int = 1) -> None:
        super().__init__()
        self.config = config
        self.total_steps = total_steps

    @abc.abstractmethod
    def draw(self, count: int, stream: Stream, *position: int) -> Tensor:
        """`count` new images (count, pixels) in [0, 1], a pure function of the weights and (seed, stream, position)."""

    def frozen_copy(self) -> Self:
        """The model as it is now, for evaluation."""
        return copy.deepcopy(self).eval().requires_grad_(False)

    def log_losses(self, losses: dict[str, Tensor], batch_size: int) -> None:
        """Count a step's losses towards the epoch's means over all processes, under `train/`."""
        self.log_dict(
            {f"train/{name}": value.detach() for name, value in losses.items()},
            on_step=False,
            on_epoch=True,
            batch_size=batch_size,
            sync_dist=True,
        )

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.config.lr, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._remaining_rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _remaining_rate(self, step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.total_steps)))
