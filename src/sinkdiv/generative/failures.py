"""Stops a training that cannot come to anything: numbers that are no longer finite, samples that are all alike."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from sinkdiv.generative.tensors import mean_squared_distance

#: Samples whose mean squared distance is below this part of the data's have collapsed.
COLLAPSED = 0.01
#: From here on they are apart. Far above the other, because untrained convolutional networks are near that by nature.
APART = 0.1
#: Steps of a model after which its samples must be apart: half of the training, within these.
LEAST_GRACE, MOST_GRACE = 500, 2000


class TrainingFailure(Exception):  # noqa: N818
    """Training was ended because it failed; `reason` is part of a line that says how."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def grace_steps(total_steps: int, turns: int) -> int:
    """Steps after which the samples of a whole training must be apart, if the model moves in one of `turns` steps."""
    return max(LEAST_GRACE * turns, min(MOST_GRACE * turns, total_steps // 2))


def require_finite(what: str, tensor: Tensor) -> None:
    """Raise `TrainingFailure` if any number of `tensor` is NaN or infinite."""
    if not torch.isfinite(tensor).all():
        raise TrainingFailure(f"{what} not finite")


def require_distances(named: Mapping[str, Tensor]) -> None:
    """Raise `TrainingFailure` unless all squared distances within each of these sets of points (n, d) are finite.

    It names the first that is not so.
    """
    # |x−y|² ≤ 4 max |x|²
    squares = [4 * points.detach().square().sum(1) for points in named.values()]
    finite = torch.stack([torch.isfinite(one).all() for one in squares])
    # One answer for all of them: on a GPU each costs a synchronisation.
    if not finite.all():
        what = next(name for name, good in zip(named, finite.tolist(), strict=True) if not good)
        raise TrainingFailure(f"{what} are not finite, or too large for their distances to be")


class FailureDetector(Callback):
    """Raises `TrainingFailure` when gradients or weights are not finite, or when samples have collapsed.

    A gradient is looked at before it is used, so that the weights are still those of the last good step, and all else
    also before an epoch ends, so that what is saved then is good. Untrained networks may produce samples that hardly
    differ, so collapse is looked for only once samples have been apart, and in any case after `grace` steps; samples
    that are all the same are one at any time.

    Args:
        draw: the model's samples at a step, (n, d), in the units of the data; without it collapse is not looked for.
        data_distance: E|y−y'|² of the data.
        every: steps between two looks at weights and samples.
        grace: steps after which samples must be apart.
    """

    def __init__(
        self,
        draw: Callable[[LightningModule, int], Tensor] | None = None,
        data_distance: float = 0.0,
        every: int = 50,
        grace: int = MOST_GRACE,
    ) -> None:
        self.draw, self.data_distance, self.every, self.grace = draw, data_distance, every, grace
        self._apart = False

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return  # Steps whose scaled gradients overflow are left out, which is no failure.
        used = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        named = ((name, weight.grad) for name, weight in pl_module.named_parameters() if id(weight) in used)
        self._check("the gradient of", named)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every == 0:
            self._look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer, pl_module)

    def check_samples(self, step: int, samples: Tensor) -> None:
        """Raise `TrainingFailure` if the samples (n, d) are not finite or have collapsed."""
        require_finite("samples are", samples)
        found = mean_squared_distance(samples)
        self._apart |= found >= APART * self.data_distance
        late = self._apart or step >= self.grace
        if found == 0 or (late and found < COLLAPSED * self.data_distance):
            raise TrainingFailure(
                f"samples have collapsed: their mean squared distance is {found:.3g}, "
                f"the data's {self.data_distance:.3g}"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"apart": self._apart}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._apart = bool(state_dict["apart"])

    def _look(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check("the weight", pl_module.named_parameters())
        if self.draw is None:
            return
        training = pl_module.training
        # Normalisation over batches must not count these samples among those of training.
        pl_module.eval()
        try:
            with torch.no_grad():
                self.check_samples(trainer.global_step, self.draw(pl_module, trainer.global_step))
        finally:
            pl_module.train(training)

    def _check(self, what: str, named: Iterable[tuple[str, Tensor | None]]) -> None:
        tensors = {name: tensor for name, tensor in named if tensor is not None}
        # One answer for all of them: on a GPU each costs a synchronisation.
        if tensors and not torch.stack([torch.isfinite(tensor).all() for tensor in tensors.values()]).all():
            for name, tensor in tensors.items():
                require_finite(f"{what} {name} is", tensor)
