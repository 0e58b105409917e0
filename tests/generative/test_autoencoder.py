"""Autoencoders with priors of their own, and what they leave alone."""

import pytest
import torch
from torch.nn.functional import normalize

from generative_models import settled
from sinkdiv import sinkhorn_divergence
from sinkdiv.generative.config import AutoencoderConfig
from sinkdiv.generative.data import load_images, training_loader
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.models import Autoencoder
from sinkdiv.generative.priors import FromSampler
from sinkdiv.generative.scores.evaluation import score
from sinkdiv.generative.seeds import Stream, generator

CONFIG = settled(AutoencoderConfig, (1, 8, 8), latent_dim=4, hidden=(32,), beta=10.0, eps=0.5, batch_size=16)


def test_streams_depend_on_their_position_alone() -> None:
    state = torch.random.get_rng_state()
    first = torch.rand(4, generator=generator(3, Stream.ORDER, 7))
    assert torch.equal(first, torch.rand(4, generator=generator(3, Stream.ORDER, 7)))
    for other in (generator(3, Stream.ORDER, 8), generator(3, Stream.PRIOR, 7), generator(4, Stream.ORDER, 7)):
        assert not torch.equal(first, torch.rand(4, generator=other))
    assert torch.equal(state, torch.random.get_rng_state())


def test_model_and_loader_leave_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, second = (Autoencoder(CONFIG) for _ in range(2))
    images = load_images("digits")
    epochs = [torch.cat(list(training_loader(images, 100, seed=0))) for _ in range(2)]
    assert torch.equal(state, torch.random.get_rng_state())
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(epochs[0], epochs[1])


def test_a_prior_without_a_name_takes_the_place_of_the_named_one() -> None:
    """A sphere of radius 3 has no name; codes, draws and the latent loss are its own."""
    shell = FromSampler(lambda count, g: 3 * normalize(torch.randn(count, 4, generator=g)), lambda z: 3 * normalize(z))
    model = Autoencoder(CONFIG, prior=shell)
    images = torch.rand(16, 64, generator=generator(0, Stream.SAMPLES))
    for points in (model.encode(images), model.draw_codes(20, Stream.SAMPLES)):
        torch.testing.assert_close(points.norm(dim=1), torch.full((len(points),), 3.0))
    codes, latent = model.method.codes_and_loss(model.encoder(images), lambda stream: generator(0, stream))
    draws = shell.sample(16, 4, generator(0, Stream.PRIOR))
    torch.testing.assert_close(latent, sinkhorn_divergence(codes, draws, eps=CONFIG.eps, tol=1e-2))
    with pytest.raises(InputError, match="--latent-dim 4: expected the sampler's"):
        Autoencoder(CONFIG, prior=FromSampler(lambda count, g: torch.rand(count, 3, generator=g)))


def test_untrained_model_scores_like_the_untrained_column_and_worse_than_the_data() -> None:
    images = load_images("digits")
    model = Autoencoder(CONFIG).eval().requires_grad_(False)
    scores = score(model, model, images)["scores"]
    assert scores["model"] == scores["untrained"]
    data = scores["training_data"]
    assert data["sample_mmd_energy_x1000"] < 0.1 * scores["model"]["sample_mmd_energy_x1000"]
    assert data["latent_mmd_energy_x1000"] < scores["model"]["latent_mmd_energy_x1000"]
    divergence = scores["model"]["sample_sinkhorn_divergence"]
    assert divergence["lower"] <= divergence["value"] <= divergence["upper"]
    assert data["sample_sinkhorn_divergence"]["value"] < divergence["lower"]
