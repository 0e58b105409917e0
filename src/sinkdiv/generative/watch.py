"""Stops a training that cannot come to anything: numbers that are no longer finite, samples that are all alike."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

#: Samples whose mean squared distance is below this part of the data's have collapsed.
COLLAPSED = 0.01


class TrainingFailure(Exception):  # noqa: N818
    """Training was ended because it failed; `reason` is one line that says how."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def spread(points: Tensor) -> float:
    """E|x−x'|² over all pairs of points (n, d), the n pairs of a point with itself included."""
    return 2 * float(points.detach().double().var(0, correction=0).sum())


def require_finite(what: str, tensor: Tensor, step: int) -> None:
    """Raise `TrainingFailure` if any number of `tensor` is NaN or infinite."""
    if not torch.isfinite(tensor).all():
        raise TrainingFailure(f"step {step}: {what} not finite")


class Watch(Callback):
    """Raises `TrainingFailure` when gradients or weights are not finite, or when samples have collapsed.

    A gradient is looked at before it is used, so that the weights are still those of the last good step. Untrained
    networks may produce samples that hardly differ, so collapse is looked for only once samples have been apart, and in
    any case after `grace` steps.

    Args:
        draw: the model's samples at a step, (n, d), in the units of the data; without it collapse is not looked for.
        data_spread: E|y−y'|² of the data, from `spread`.
        every: steps between two looks at weights and samples.
        grace: steps after which samples must be apart.
    """

    def __init__(
        self,
        draw: Callable[[LightningModule, int], Tensor] | None = None,
        data_spread: float = 0.0,
        every: int = 50,
        grace: int = 1000,
    ) -> None:
        self.draw, self.data_spread, self.every, self.grace = draw, data_spread, every, grace
        self._apart = False

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return  # Steps whose scaled gradients overflow are left out, which is no failure.
        used = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        named = ((name, weight.grad) for name, weight in pl_module.named_parameters() if id(weight) in used)
        self._check(trainer.global_step, "the gradient of", named)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step % self.every:
            return
        self._check(step, "the weight", pl_module.named_parameters())
        if self.draw is not None:
            self.check_samples(step, self.draw(pl_module, step))

    def check_samples(self, step: int, samples: Tensor) -> None:
        """Raise `TrainingFailure` if the samples (n, d) are not finite or have collapsed."""
        require_finite("samples are", samples, step)
        found, least = spread(samples), COLLAPSED * self.data_spread
        if found >= least:
            self._apart = True
        elif self._apart or step >= self.grace:
            raise TrainingFailure(
                f"step {step}: samples have collapsed: their mean squared distance is {found:.3g}, "
                f"the data's {self.data_spread:.3g}"
            )

    def _check(self, step: int, what: str, named: Iterable[tuple[str, Tensor | None]]) -> None:
        tensors = {name: tensor for name, tensor in named if tensor is not None}
        # One answer for all of them: on a GPU each costs a synchronisation.
        if tensors and not torch.stack([torch.isfinite(tensor).all() for tensor in tensors.values()]).all():
            for name, tensor in tensors.items():
                require_finite(f"{what} {name} is", tensor, step)
