"""Training steps on an accelerator: every operation has its tensors on one device, and the host seldom waits.

Meta tensors stand for an accelerator's: they have shapes, dtypes and a device of their own, and no numbers.
"""

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

pytest.importorskip("lightning")

from generative_models import settled
from sinkdiv.generative.config import AutoencoderConfig, GeneratorConfig
from sinkdiv.generative.critic import slope_penalty
from sinkdiv.generative.failures import TrainingFailure, require_distances
from sinkdiv.generative.methods import METHODS, default_prior
from sinkdiv.generative.models.autoencoder import Autoencoder
from sinkdiv.generative.models.generator import SinkhornGenerator
from sinkdiv.generative.seeds import Stream, generator
from sinkdiv.generative.tensors import to_device

aten = torch.ops.aten
DEVICE = torch.device("meta")
SHAPE = (1, 8, 8)
#: Solving on the host is what this method is.
ON_THE_HOST = {"hae"}


class Accelerator(TorchDispatchMode):
    """Counts the numbers that the host reads, and refuses operations between devices."""

    def __init__(self):
        super().__init__()
        self.reads, self.waiting_copies = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        packet = function.overloadpacket
        if packet is aten._local_scalar_dense and args[0].device == DEVICE:
            self.reads += 1
            return True
        if packet is aten._to_copy and kwargs.get("device") == torch.device("cpu") and args[0].device == DEVICE:
            self.reads += 1
            return torch.ones_like(args[0], device="cpu")
        if packet is aten._to_copy and args[0].device != kwargs.get("device", args[0].device):
            self.waiting_copies += not kwargs.get("non_blocking")
            return function(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.ndim > 0]
        assert len({tensor.device for tensor in tensors}) <= 1, f"{function} between devices"
        return function(*args, **kwargs)


@pytest.fixture(autouse=True)
def without_autocast(monkeypatch):
    """Of which meta tensors know nothing."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())


def stand_in(samples, data):
    """For a Sinkhorn loss, whose own reads and kernels have tests of their own."""
    return (samples.mean(0) - data.mean(0)).square().sum()


@pytest.mark.parametrize("critic_bound", [None, "clip", "penalty", "spectral"])
def test_a_generators_loss_is_on_its_device(critic_bound):
    given = {} if critic_bound is None else {"cost": "learned", "critic_bound": critic_bound}
    model = SinkhornGenerator(settled(GeneratorConfig, SHAPE, **given)).to(DEVICE)
    model.loss = stand_in
    batch = torch.rand(12, 64, device=DEVICE)
    with Accelerator() as seen:
        samples = model.samples_of_step(12, 0)
        loss = model.divergence(samples, batch)
        if critic_bound == "penalty":
            loss = loss + slope_penalty(model.critic, samples.detach(), batch, generator(0, Stream.PRIOR, 0))
        loss.backward()
    assert loss.device == DEVICE
    assert seen.waiting_copies == 0
    assert seen.reads == 1  # whether everything is finite


@pytest.mark.parametrize("method", sorted(METHODS.keys() - ON_THE_HOST))
def test_an_autoencoders_step_is_on_its_device(method):
    given = {"method": method, "prior": default_prior(method)}
    model = Autoencoder(settled(AutoencoderConfig, SHAPE, **given)).to(DEVICE)
    model.log_dict = lambda *_, **__: None
    if method == "sae":
        ((_, latent_loss),) = model.method.terms
        latent_loss.loss = stand_in
    with Accelerator() as seen:
        loss = model.training_step(torch.rand(12, 64, device=DEVICE), 0)
        loss.backward()
    assert loss.device == DEVICE
    assert seen.waiting_copies == 0
    assert seen.reads <= 1 + (method == "energy")  # whether everything is finite, there and at `mmd`'s door


def test_numbers_are_sent_as_they_are():
    numbers = torch.randn(3, dtype=torch.float64)
    assert to_device(numbers, torch.device("cpu")) is numbers
    assert to_device(numbers, DEVICE, torch.float32).dtype == torch.float32


def test_the_first_set_that_is_not_finite_is_named():
    good, bad = torch.ones(3, 2), torch.full((3, 2), torch.inf)
    require_distances({"samples": good, "data": good})
    with pytest.raises(TrainingFailure, match="data are not finite"):
        require_distances({"samples": good, "data": bad, "features": bad})
