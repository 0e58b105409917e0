"""Two processes that share a batch make the generator's step of one process that has all of it."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from generative_models import settled
from sinkdiv.generative.config import GeneratorConfig
from sinkdiv.generative.models.generator import SinkhornGenerator

COUNT, SHAPE = 12, (1, 4, 4)


class Step(nn.Module):
    """The loss of a training step, as a module's forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.model = SinkhornGenerator(settled(GeneratorConfig, SHAPE, hidden=(8,), latent_dim=3, batch_size=COUNT))

    def forward(self, images: Tensor) -> Tensor:
        return self.model.divergence(self.model.samples_of_step(len(images), 5), images)


def loss_and_gradients(module: nn.Module, images: Tensor) -> list[Tensor]:
    loss = module(images)
    loss.backward()
    return [loss.detach(), *(weight.grad for weight in module.parameters() if weight.grad is not None)]


def batch() -> Tensor:
    return torch.rand(COUNT, 16, generator=torch.Generator().manual_seed(0))


def share(rank: int, meeting: Path) -> list[Tensor]:
    distributed.init_process_group("gloo", f"file://{meeting}", timedelta(minutes=5), world_size=2, rank=rank)
    try:
        return loss_and_gradients(DistributedDataParallel(Step()), batch().chunk(2)[rank])
    finally:
        distributed.destroy_process_group()


def share_and_save(rank: int, meeting: Path, results: Path) -> None:
    torch.save(share(rank, meeting), results)


@pytest.mark.skipif(not distributed.is_available(), reason="PyTorch was built without it")
def test_loss_and_gradients_are_those_of_one_process(tmp_path: Path) -> None:
    """To the rounding of float32: 1e-5 of the largest."""
    meeting, results = tmp_path / "meeting", tmp_path / "results.pt"
    other = multiprocessing.get_context("spawn").Process(target=share_and_save, args=(1, meeting, results))
    other.start()
    found = [share(0, meeting)]
    other.join()
    found.append(torch.load(results, weights_only=True))
    expected = loss_and_gradients(Step(), batch())
    assert len(expected) == 5
    for one in found:
        for ours, theirs in zip(one, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))
