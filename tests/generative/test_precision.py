"""Mixed precision lowers the networks' arithmetic, and nothing that is computed from their outputs."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from generative_models import settled, train
from sinkdiv.generative.config import AutoencoderConfig
from sinkdiv.generative.data import load_images
from sinkdiv.generative.failures import TrainingFailure
from sinkdiv.generative.models.autoencoder import Autoencoder
from sinkdiv.generative.runs import RunFolder, load_run

# Of a number's significand: its relative rounding error is half of this at most.
SPACING = {torch.bfloat16: 2**-7, torch.float16: 2**-10}
HALVES = list(SPACING)


def make(shape: tuple[int, ...] = (1, 8, 8), **settings: Any) -> Autoencoder:
    given = {"hidden": (64, 64), "latent_dim": 6, "batch_size": 64} | settings
    return Autoencoder(settled(AutoencoderConfig, shape, **given))


def step(model: Autoencoder, images: Tensor, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The losses of a training step and their gradient, in an autocast region as the trainer opens it."""
    losses: dict[str, Tensor] = {}
    model.log_losses = lambda found, batch_size: losses.update(found)
    model.zero_grad()
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        loss = model.training_step(images, 0)
    loss.backward()
    gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return {name: value.detach() for name, value in losses.items()} | {"gradient": torch.cat(gradients)}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("prior", ["sphere", "torus", "dirichlet", "sphere@3*normal@3"])
def test_codes_are_float32_and_on_the_support(prior: str, dtype: torch.dtype) -> None:
    model = make(prior=prior)
    with torch.autocast("cpu", dtype):
        codes = model.encode(load_images("digits").held_out)
    assert codes.dtype == torch.float32
    sizes = {
        "sphere": codes.norm(dim=1),
        "torus": codes.reshape(-1, 2).norm(dim=1),
        "dirichlet": codes.sum(1),
        "sphere@3*normal@3": codes[:, :3].norm(dim=1),
    }[prior]
    torch.testing.assert_close(sizes, torch.ones_like(sizes), rtol=0, atol=4 * torch.finfo(torch.float32).eps)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"latent_cost": "geodesic"},
        {"debias": "independent"},
        {"value": "sharp", "rounding": True},
        {"value": "sharp", "debias": "none", "derivative": "unrolled", "iterations": 5},
        *[{"method": name} for name in ("hvae", "wae", "swae", "w2gae", "hae", "energy")],
        *[{"method": name, "prior": "normal"} for name in ("vae", "beta-vae")],
    ],
    ids=lambda settings: "-".join(map(str, settings.values())) or "default",
)
def test_the_latent_loss_is_not_lowered(settings: dict[str, Any], dtype: torch.dtype) -> None:
    """An encoder that passes its input on has no arithmetic to lower: the latent loss is the same to the last bit."""
    outputs = make(**settings).method.outputs
    model = make((1, 1, outputs), **settings)
    model.encoder = torch.nn.Identity()
    rows = torch.rand(32, outputs, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.equal(step(model, rows, dtype)["latent"], step(model, rows)["latent"])


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("settings", [{}, {"method": "vae", "prior": "normal"}, {"method": "hae"}])
def test_a_steps_losses_and_gradient_are_those_of_float32(settings: dict[str, Any], dtype: torch.dtype) -> None:
    """Twelve roundings in a row, of six layers there and back, each of half a spacing at most."""
    model, images = make(**settings), load_images("digits").train[:64]
    ours, expected = step(model, images, dtype), step(model, images)
    tolerance = 6 * SPACING[dtype]
    for name in ("reconstruction", "latent"):
        assert ours[name].dtype == torch.float32
        assert float(ours[name]) == pytest.approx(float(expected[name]), rel=tolerance)
    difference = ours["gradient"] - expected["gradient"]
    assert ours["gradient"].dtype == torch.float32
    assert 0 < float(difference.norm()) < tolerance * float(expected["gradient"].norm())


def quick_run(root: Path, **settings: Any) -> RunFolder:
    return train(root, AutoencoderConfig, hidden=(32,), max_epochs=4, batch_size=100, **settings)


def test_training_in_bfloat16_improves_as_in_float32(tmp_path: Path) -> None:
    runs = {name: quick_run(tmp_path / name, precision=name) for name in ("float32", "bfloat16")}
    ours, expected = load_run(runs["bfloat16"]).history.rows, load_run(runs["float32"]).history.rows
    for key in ("train/reconstruction", "train/latent", "held_out/reconstruction"):
        gain, expected_gain = ours[0][key] - ours[-1][key], expected[0][key] - expected[-1][key]
        assert gain == pytest.approx(expected_gain, rel=0.05)
        assert expected_gain > 0
        assert ours[-1][key] != expected[-1][key]
    weights = load_run(runs["bfloat16"]).model.state_dict().values()
    assert {weight.dtype for weight in weights} == {torch.float32}
    scores = json.loads(runs["bfloat16"].metrics.read_text())["scores"]
    assert math.isfinite(scores["model"]["reconstruction_nats_per_image"])


@pytest.mark.parametrize("settings", [{"method": "ae"}, {"precision": "bfloat16"}])
def test_training_that_diverges_keeps_no_nan(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(TrainingFailure, match=r"^step 1: .* not finite"):
        quick_run(tmp_path / "run", lr=1e30, **settings)
    assert not list(tmp_path.rglob("*.ckpt"))
