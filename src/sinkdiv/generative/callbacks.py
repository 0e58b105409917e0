"""What happens around training steps: history, progress, the way out on Ctrl-C, whole checkpoints."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sinkdiv.generative.files import write_tensors

LINES_WITHOUT_A_TERMINAL = 10


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that replace their predecessor in one step, and are read as tensors and plain values only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_tensors(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        content: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        return content


class History(Callback):
    """Every epoch's losses and the seconds spent, kept inside the checkpoint so that a resumed run has all of them."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0
        self._started = 0.0

    @property
    def state_key(self) -> str:
        return "History"

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()
        # A loss that no step of this epoch computes would keep the value of an earlier one.
        trainer.callback_metrics.clear()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append({"epoch": trainer.current_epoch + 1} | values)
        self.seconds += time.perf_counter() - self._started

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = [dict(row) for row in state_dict["rows"]]
        self.seconds = float(state_dict["seconds"])


class EpochCheckpoint(ModelCheckpoint):
    """One checkpoint, replaced after every epoch; it supersedes the state of an interrupted epoch."""

    def __init__(self, last: Path, interrupted: Path) -> None:
        super().__init__(
            dirpath=last.parent, filename=last.stem, save_on_train_epoch_end=True, enable_version_counter=False
        )
        self.interrupted = interrupted

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        self.interrupted.unlink(missing_ok=True)


class StoppedError(Exception):
    """Training was asked to stop, and its state was saved."""


class StopOnSignal(Callback):
    """Ends training after the step during which Ctrl-C was pressed; a second Ctrl-C ends it at once."""

    def __init__(self, interrupted: Path) -> None:
        self.interrupted = interrupted
        self.requested = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Processes that share a batch must stop after the same step.
        if trainer.strategy.reduce_boolean_decision(self.requested, all=False):
            trainer.save_checkpoint(self.interrupted)
            raise StoppedError

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take over Ctrl-C inside the block. Only the main thread receives signals; elsewhere this does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGINT, self._request)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


class TrainingBar(Callback):
    """One bar for the whole training; without a terminal, a line every tenth of the way."""

    def __init__(self, console: Console, history: History) -> None:
        self.console, self.history = console, history
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            console=console,
            disable=not console.is_terminal,
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        steps = int(trainer.num_training_batches)
        self.task = self.progress.add_task(
            "training",
            total=steps * (trainer.max_epochs or 0),
            completed=steps * trainer.current_epoch,
            epoch=trainer.current_epoch + 1,
            epochs=trainer.max_epochs,
            losses=_losses_line(self.history.rows),
        )
        self.progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.progress.update(self.task, advance=1, epoch=trainer.current_epoch + 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.progress.update(self.task, losses=_losses_line(self.history.rows))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or 1
        line = _losses_line(self.history.rows)
        self.progress.update(self.task, losses=line)
        if not self.console.is_terminal and epoch * LINES_WITHOUT_A_TERMINAL // epochs != (
            (epoch - 1) * LINES_WITHOUT_A_TERMINAL // epochs
        ):
            self.console.print(f"epoch {epoch}/{epochs}  {line}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.progress.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.progress.stop()


def _losses_line(rows: list[dict[str, float]]) -> str:
    if not rows:
        return ""
    row, parts = rows[-1], []
    for key, value in row.items():
        if key.startswith("train/"):
            name = key.removeprefix("train/")
            held_out = f" (held out {row[f'held_out/{name}']:.4g})" if f"held_out/{name}" in row else ""
            parts.append(f"{name} {value:.4g}{held_out}")
    return "  ".join(parts)
