"""What a run's scores are made of: rows, columns, the record of features, and how they are shown."""

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from generative_models import settled
from sinkdiv.generative.config import AutoencoderConfig, RunConfig
from sinkdiv.generative.data import Images, load_images
from sinkdiv.generative.features import efficientnet
from sinkdiv.generative.features.classifier import card
from sinkdiv.generative.models.autoencoder import Autoencoder
from sinkdiv.generative.models.base import Model
from sinkdiv.generative.scores import SCORES
from sinkdiv.generative.scores.evaluation import score
from sinkdiv.generative.scores.subject import Score
from sinkdiv.generative.scores.table import explanation, headline, score_table
from sinkdiv.generative.seeds import Stream, generator

LOWER_IS_BETTER = {"fid", "kid_x1000", "sample_w2", "latent_mmd_imq_x1000", "latent_mmd_energy_x1000"}
HIGHER_IS_BETTER = {"classifier_score", "precision", "recall", "density", "coverage"}


def made(**changes: Any) -> Autoencoder:
    chosen = {"data": "mnist-5k", "prior": "sphere@4*normal@2", "hidden": (16,), "beta": 10.0, "eps": 0.5}
    config = settled(AutoencoderConfig, (1, 28, 28), **chosen | changes)
    return Autoencoder(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images() -> Images:
    return load_images("mnist-5k")


@pytest.fixture(scope="module")
def metrics(images: Images) -> dict[str, Any]:
    return score(made(), made(), images)


def test_every_row_has_three_columns_and_real_images_win(metrics: dict[str, Any]) -> None:
    scores = metrics["scores"]
    assert scores["model"].keys() == scores["untrained"].keys() == scores["training_data"].keys()
    assert scores["model"].keys() == SCORES.keys()
    assert metrics["missing"] == []
    untrained, data = scores["untrained"], scores["training_data"]
    assert all(data[key] < untrained[key] for key in LOWER_IS_BETTER)
    assert all(data[key] > untrained[key] for key in HIGHER_IS_BETTER)
    divergence = untrained["feature_sinkhorn_divergence"]
    assert data["feature_sinkhorn_divergence"]["value"] < divergence["lower"] <= divergence["value"]
    assert data["nearest_training_ratio"] == pytest.approx(1, abs=0.1)
    assert data["copied_share"] < 0.05


def test_the_record_says_which_features_and_how_many_images(metrics: dict[str, Any]) -> None:
    assert metrics["features"] == {"name": "mnist_classifier", "digest": card("mnist")["sha256"], "images": 500}


def test_titles_name_the_features(metrics: dict[str, Any]) -> None:
    titles = [row[0] for row in score_table(metrics)]
    assert "samples, FID (mnist classifier) ↓" in titles
    assert "samples, coverage (mnist classifier) ↑" in titles
    assert "samples, Wasserstein-2 distance (mnist classifier) ↓" in titles
    assert all("{" not in title for title in titles)
    assert len(titles) == len(metrics["scores"]["model"])
    assert ("samples, FID (mnist classifier)", f"{metrics['scores']['model']['fid']:.2f}") in headline(metrics)
    assert "500 in FID" in explanation(metrics)


def test_scores_are_a_function_of_the_run_alone(metrics: dict[str, Any], images: Images) -> None:
    state = torch.random.get_rng_state()
    assert score(made(), made(), images) == metrics
    assert torch.equal(state, torch.random.get_rng_state())


@dataclass(frozen=True, kw_only=True)
class NoiseConfig(RunConfig):
    model = "noise"

    @property
    def described(self) -> tuple[str, str]:
        return "noise", ""


class Noise(Model):
    """A model without an encoder, that remembers how many images it was asked for."""

    def __init__(self, config: RunConfig, total_steps: int = 1) -> None:
        super().__init__(config, total_steps)
        self.asked: list[int] = []

    def draw(self, count: int, stream: Stream, *position: int) -> torch.Tensor:
        self.asked.append(count)
        return torch.rand(count, self.config.pixels, generator=generator(self.config.seed, stream, *position))


def noise(images: Images) -> Noise:
    return Noise(settled(NoiseConfig, images.shape, data=images.name))


def random_images(name: str, shape: tuple[int, int, int], held_out: int) -> Images:
    pixels = shape[0] * shape[1] * shape[2]
    train, others = torch.rand(2 * held_out, pixels, generator=generator(0, Stream.SPLIT)).split(held_out)
    return Images(name, shape, train, others, None, None, "")


def test_a_model_without_an_encoder_is_scored_in_small_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_images("made", (1, 3, 3), 2500)
    model = noise(images)
    scored = score(model, copy.deepcopy(model), images)
    assert model.asked == [1000, 1000, 500]
    assert scored["images_compared"] == 1000
    # It draws from the law of the images, so that all of its scores are noise.
    ours, data = scored["scores"]["model"], scored["scores"]["training_data"]
    assert not any(key.startswith(("latent", "reconstruction")) for key in ours)
    assert ours["sample_w2"] == pytest.approx(data["sample_w2"], rel=0.1)
    assert ours["nearest_training_ratio"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("name", "shape", "held_out", "reason"),
    [
        ("photos.zip", (3, 4, 4), 30, 'pip install "sinkdiv[backbone]", and then sinkdiv evaluate'),
        ("digits", (1, 8, 8), 30, "only mnist, mnist-5k, fashion-mnist have features"),
        ("mnist", (1, 28, 28), 19, "they need 20 held-out images, not 19"),
    ],
)
def test_scores_that_there_are_not_are_explained(
    monkeypatch: pytest.MonkeyPatch, name: str, shape: tuple[int, int, int], held_out: int, reason: str
) -> None:
    monkeypatch.setattr(efficientnet, "WEIGHTS_PACKAGE", "not_installed")
    images = random_images(name, shape, held_out)
    scored = score(noise(images), noise(images), images)
    assert scored["features"] is None
    assert "fid" not in scored["scores"]["model"]
    assert "samples, Wasserstein-2 distance (pixels) ↓" in [row[0] for row in score_table(scored)]
    assert reason in explanation(scored)


@pytest.mark.skipif(not efficientnet.available(), reason="needs sinkdiv[backbone]")
def test_few_colour_images_have_all_scores_but_fid(monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_images("photos.zip", (3, 8, 8), 40)
    scored = score(noise(images), noise(images), images)
    assert scored["features"]["name"] == "efficientnet_lite0"
    assert "There is no FID: 40 images for 1280 features." in explanation(scored)
    assert "fid" not in scored["scores"]["model"]
    assert scored["scores"]["model"].keys() > HIGHER_IS_BETTER


def test_a_new_score_is_a_line_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    brightness = Score("samples, mean grey level", 2, lambda subject: float(subject.samples.mean()), "→ 0.5")
    monkeypatch.setitem(SCORES, "brightness", brightness)
    images = random_images("made", (1, 3, 3), 50)
    scored = score(noise(images), noise(images), images)
    assert scored["scores"]["training_data"]["brightness"] == pytest.approx(0.5, abs=0.05)
    assert score_table(scored)[-1][0] == "samples, mean grey level → 0.5"


def test_a_score_without_a_value_is_shown_as_a_dash(metrics: dict[str, Any]) -> None:
    scores = {name: column | {"nearest_training_ratio": None} for name, column in metrics["scores"].items()}
    rows = {row[0]: row[1:] for row in score_table(metrics | {"scores": scores})}
    assert rows["samples, distance to training ÷ held-out images (pixels) → 1"] == ("–", "–", "–")
