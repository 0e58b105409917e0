"""What a run's scores are made of: rows, columns, the record of features, and how they are shown."""

from typing import Any

import pytest
import torch

from sinkdiv.generative.autoencoder import Autoencoder
from sinkdiv.generative.classifier import card
from sinkdiv.generative.config import AutoencoderConfig
from sinkdiv.generative.data import Images, load_images
from sinkdiv.generative.metrics import score
from sinkdiv.generative.score_table import COLUMNS, explanation, headline, score_table

MADE = {
    "data": "mnist-5k",
    "data_fingerprint": "",
    "image_shape": (1, 28, 28),
    "binarize": False,
    "method": "sae",
    "prior": "sphere@4*normal@2",
    "latent_dim": 6,
    "network": "mlp",
    "likelihood": "bernoulli",
    "hidden": (16,),
    "beta": 10.0,
    "eps": 0.5,
    "batch_size": 16,
    "lr": 1e-3,
    "max_epochs": 1,
    "seed": 0,
}
HIGHER_IS_BETTER = {"classifier_score", "precision", "recall", "density", "coverage"}


def made(**changes: Any) -> Autoencoder:
    return Autoencoder(AutoencoderConfig(**MADE | changes)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images() -> Images:
    return load_images("mnist-5k")


@pytest.fixture(scope="module")
def metrics(images: Images) -> dict[str, Any]:
    return score(made(), images)


def test_every_row_has_three_columns_and_real_images_win(metrics: dict[str, Any]) -> None:
    scores = metrics["scores"]
    assert scores["model"].keys() == scores["untrained"].keys() == scores["training_data"].keys()
    assert scores["model"].keys() > HIGHER_IS_BETTER
    for key in ("fid", "kid_x1000", "latent_mmd_imq_x1000", *HIGHER_IS_BETTER):
        worse, better = scores["untrained"][key], scores["training_data"][key]
        assert (better > worse) if key in HIGHER_IS_BETTER else (better < worse)


def test_the_record_says_which_features_and_how_many_images(metrics: dict[str, Any]) -> None:
    assert metrics["features"] == {"name": "mnist_classifier", "digest": card("mnist")["sha256"], "images": 500}


def test_titles_name_the_features(metrics: dict[str, Any]) -> None:
    titles = [row[0] for row in score_table(metrics)]
    assert "samples, FID (mnist classifier)" in titles
    assert all("{" not in title for title in titles)
    assert len(titles) == len(metrics["scores"]["model"])
    assert ("samples, FID (mnist classifier)", f"{metrics['scores']['model']['fid']:.2f}") in headline(metrics)
    assert "mnist classifier" in explanation(metrics)


def test_scores_are_a_function_of_the_run_alone(metrics: dict[str, Any], images: Images) -> None:
    state = torch.random.get_rng_state()
    assert score(made(), images) == metrics
    assert torch.equal(state, torch.random.get_rng_state())


def test_images_without_features_have_the_other_scores() -> None:
    scored = score(made(data="digits", image_shape=(1, 8, 8), prior="sphere"), load_images("digits"))
    assert scored["features"] is None
    assert "fid" not in scored["scores"]["model"]
    for column in COLUMNS:
        assert {"latent_mmd_imq_x1000", "sample_sinkhorn_divergence"} < scored["scores"][column].keys()
    assert len(score_table(scored)) == len(scored["scores"]["model"])
