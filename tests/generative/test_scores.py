"""Scores against closed forms, independent libraries, plain loops and constructed examples with known answers."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import linalg
from scipy.spatial.distance import cdist, pdist
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import poly_mmd

from sinkdiv.generative.data import load_images
from sinkdiv.generative.features import Activations, features_for
from sinkdiv.generative.latent_losses.mmd import IMQ_SCALES, imq_mmd
from sinkdiv.generative.scores.confidence import classifier_score
from sinkdiv.generative.scores.frechet import frechet_distance
from sinkdiv.generative.scores.kernel import kernel_distance, multiquadric_distance
from sinkdiv.generative.scores.memorisation import memorisation_scores, nearest_distances, relative_distances
from sinkdiv.generative.scores.support import support_scores
from sinkdiv.generative.scores.transport import certified_divergence, exact_wasserstein, root_mean_square_distance


def normal(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    images = load_images("mnist-5k")
    return torch.cat([images.train, images.held_out])


@pytest.fixture(scope="module")
def extract() -> Callable[[Tensor], Activations]:
    return features_for("mnist-5k", (1, 28, 28))


def test_frechet_distance_is_the_closed_form_with_a_matrix_square_root() -> None:
    x, y = normal(300, 6, 0) @ normal(6, 6, 1), normal(200, 6, 2) + 0.5
    a, b = np.cov(x.T), np.cov(y.T)
    root = linalg.sqrtm(linalg.sqrtm(a) @ b @ linalg.sqrtm(a))
    expected = float(((x.mean(0) - y.mean(0)) ** 2).sum()) + np.trace(a + b - 2 * root.real)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_of_gaussians_tends_to_that_of_their_parameters() -> None:
    # W2² of N(0, I) and N(1, 4 I) in 4 dimensions: 4 · (1² + (2 − 1)²); sampling noise is of the order 1/√n.
    assert frechet_distance(normal(50_000, 4, 0), 1 + 2 * normal(50_000, 4, 1)) == pytest.approx(8, rel=0.02)


def test_frechet_distance_is_what_torchmetrics_finds_in_images(digits: Tensor, extract: nn.Module) -> None:
    class Network(nn.Module):
        num_features = 64

        def forward(self, images: Tensor) -> Tensor:
            return extract(images).features

    metric = FrechetInceptionDistance(feature=Network())
    for real, half in ((True, digits[:1000]), (False, digits[1000:2000])):
        for batch in half.split(300):
            metric.update(batch, real=real)
    ours = frechet_distance(extract(digits[1000:2000]).features, extract(digits[:1000]).features)
    assert ours == pytest.approx(float(metric.compute()), rel=1e-4)


def test_kernel_distance_is_the_double_sum() -> None:
    x, y = normal(7, 3, 0), normal(5, 3, 1) + 0.3

    def k(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    def within(z: Tensor) -> float:
        return sum(k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j) / (len(z) * (len(z) - 1))

    expected = within(x) + within(y) - 2 * sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_of_one_subset_is_that_of_torchmetrics() -> None:
    x, y = normal(2100, 4, 0), 1.2 * normal(2100, 4, 1)
    assert kernel_distance(x, y) == pytest.approx(float(poly_mmd(x, y)), rel=1e-10)


def test_kernel_distance_is_unbiased() -> None:
    draws = [kernel_distance(normal(20, 4, 2 * k), normal(20, 4, 2 * k + 1)) for k in range(400)]
    assert min(draws) < 0
    assert abs(np.mean(draws)) < 3 * np.std(draws) / math.sqrt(len(draws))


@pytest.mark.filterwarnings("ignore:std")
def test_classifier_score_is_that_of_torchmetrics() -> None:
    logits = 3 * normal(400, 5, 0)
    with pytest.warns(UserWarning, match="save all extracted features"):
        metric = InceptionScore(feature=nn.Identity(), splits=1)
    metric.update(logits)
    assert classifier_score(logits, splits=1) == (pytest.approx(float(metric.compute()[0]), rel=1e-10), 0)


def test_classifier_score_runs_from_one_to_the_number_of_classes() -> None:
    sure = 1000 * torch.eye(4).repeat(50, 1)
    assert classifier_score(sure, splits=5) == pytest.approx((4, 0), abs=1e-9)
    assert classifier_score(sure[:1].expand(100, 4)) == pytest.approx((1, 0), abs=1e-9)
    assert classifier_score(torch.zeros(100, 4)) == pytest.approx((1, 0), abs=1e-9)


def test_multiquadric_distance_is_the_latent_loss_of_wasserstein_autoencoders() -> None:
    # That loss forms all pairs at once; 600 and 520 points are several blocks here.
    x, y = normal(600, 3, 0), 0.7 * normal(520, 3, 1)
    ours = multiquadric_distance(x, y, [6 * scale for scale in IMQ_SCALES])
    assert ours == pytest.approx(float(imq_mmd(x, y, 6.0)), rel=1e-9)


def test_multiquadric_distance_is_accurate_in_float32() -> None:
    x, y = 3 + normal(600, 10, 0), 3 + normal(600, 10, 1)
    scales = [20 * scale for scale in IMQ_SCALES]
    narrow = multiquadric_distance(x.float(), y.float(), scales)
    assert narrow == pytest.approx(multiquadric_distance(x, y, scales), abs=1e-6)


def test_support_scores_count_what_a_nearest_neighbour_search_finds() -> None:
    x, y = normal(230, 3, 0), 0.5 + 0.8 * normal(310, 3, 1)
    radii = {}
    for name, points in (("x", x), ("y", y)):
        distances, _ = NearestNeighbors(n_neighbors=6).fit(points).kneighbors(points)
        radii[name] = distances[:, 5]
    within_y = np.linalg.norm(x[:, None] - y, axis=2) <= radii["y"]
    within_x = np.linalg.norm(x[:, None] - y, axis=2) <= radii["x"][:, None]
    expected = (within_y.any(1).mean(), within_x.any(0).mean(), within_y.sum(1).mean() / 5, within_y.any(0).mean())
    assert support_scores(x.float(), y.float(), 5) == pytest.approx(expected, abs=1e-12)


def test_support_scores_of_one_law_are_as_derived() -> None:
    # Naeem et al. 2020, Lemmas 1 and 2: density 1, coverage 1 − 2^−k for large samples; three standard errors.
    support = support_scores(normal(3000, 8, 0), normal(3000, 8, 1), 5)
    assert support.density == pytest.approx(1, abs=0.05)
    assert support.coverage == pytest.approx(1 - 2**-5, abs=0.01)


def test_a_lost_mode_costs_recall_and_coverage_but_not_precision() -> None:
    """Kynkäänniemi et al. 2019, §3: precision and recall part quality from variety."""
    modes = torch.tensor([[0.0, 0.0], [50.0, 0.0]], dtype=torch.float64)
    reference = normal(400, 2, 0) + modes.repeat(200, 1)
    one_mode = support_scores(normal(400, 2, 1), reference)
    assert one_mode.precision > 0.9
    assert one_mode.density > 0.8
    assert one_mode.recall == pytest.approx(0.5, abs=0.05)
    assert one_mode.coverage == pytest.approx(0.5, abs=0.05)
    outside = support_scores(normal(400, 2, 1) + 500, reference)
    assert outside == (0, 0, 0, 0)


def test_one_real_outlier_raises_precision_but_hardly_density() -> None:
    """Naeem et al. 2020, §3.2: the wide ball of an outlier holds samples that are like no other real image."""
    reference = torch.cat([normal(200, 2, 0), torch.tensor([[100.0, 100.0]], dtype=torch.float64)])
    support = support_scores(50 + normal(200, 2, 1), reference)
    assert support.precision > 0.9
    assert support.density <= 0.2


def blurred(images: Tensor, width: int) -> Tensor:
    pictures = images.reshape(-1, 1, 28, 28)
    return nn.functional.avg_pool2d(pictures, width, stride=1, padding=width // 2).flatten(1)


def noisy(images: Tensor, scale: float) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + scale * noise).clamp(0, 1)


def test_nearest_distances_are_those_of_a_search_and_copies_are_exact() -> None:
    training, images = normal(2300, 6, 0).float() + 40, normal(70, 6, 1).float() + 40
    images[3] = training[2105]
    distances = nearest_distances(images, training)
    np.testing.assert_allclose(distances, cdist(images.double(), training.double()).min(1), rtol=1e-5)
    assert distances[3] == 0
    rows = torch.arange(1990, 2060)
    neighbours, _ = NearestNeighbors(n_neighbors=2).fit(training).kneighbors(training[rows])
    np.testing.assert_allclose(nearest_distances(training[rows], training, rows), neighbours[:, 1], rtol=1e-5)


def test_copies_are_seen_and_new_images_are_not_taken_for_them(digits: Tensor) -> None:
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    training, held_out, new = digits[order[:3000]], digits[order[3000:4000]], digits[order[4000:]]
    copies = training[:1000]

    def relative(images: Tensor, own: Tensor | None = None) -> Tensor:
        return relative_distances(nearest_distances(images, training), nearest_distances(images, held_out, own))

    usual = relative(held_out, torch.arange(1000))

    def memorised(images: Tensor) -> tuple[float | None, float]:
        return memorisation_scores(relative(images), usual)

    # The share's tolerance is three standard errors of 1 % of a thousand, on both sides.
    assert memorised(new) == (pytest.approx(1, abs=0.05), pytest.approx(0.01, abs=0.0135))
    # Smooth new images are nearer to all images than real ones are, in the same proportion to both sets.
    assert memorised(blurred(new, 3)) == (pytest.approx(1, abs=0.05), pytest.approx(0, abs=0.01))
    assert memorised(copies) == (0, 1)
    ratio, share = memorised(noisy(copies, 0.1))
    assert ratio < 0.5
    assert share > 0.8
    assert memorised(blurred(copies, 3))[0] < 0.8


def test_twins_in_the_data_leave_no_ratio() -> None:
    zero, one = torch.zeros(10), torch.ones(10)
    assert relative_distances(zero, zero).tolist() == one.tolist()
    assert memorisation_scores(one, zero) == (None, 0)
    assert memorisation_scores(relative_distances(one, zero), one) == (None, 0)


def test_exact_wasserstein_on_a_line_sorts() -> None:
    x, y = normal(500, 1, 0), 2 * normal(500, 1, 1) + 1
    expected = float((x.sort(0).values - y.sort(0).values).square().mean().sqrt())
    assert exact_wasserstein(x, y) == pytest.approx(expected, rel=1e-12)


def test_exact_wasserstein_of_a_translation_is_its_length() -> None:
    x = normal(300, 5, 0)
    shift = torch.tensor([3.0, 0, 4, 0, 0], dtype=torch.float64)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    assert exact_wasserstein(x, x[order] + shift) == pytest.approx(5, rel=1e-12)
    with pytest.raises(ValueError, match="equally many, not 300 and 299"):
        exact_wasserstein(x, x[1:])


def test_the_divergence_tends_to_the_exact_distance_with_its_blur() -> None:
    """F19, Theorem 1: S_ε → W2² as ε → 0; and the interval holds the value."""
    x, y = normal(300, 3, 0), normal(300, 3, 1) + 1
    divergence = certified_divergence(x, y, blur=0.02)
    assert divergence["lower"] <= divergence["value"] <= divergence["upper"]
    assert divergence["value"] == pytest.approx(exact_wasserstein(x, y) ** 2, rel=0.01)


def test_root_mean_square_distance_is_that_of_all_pairs() -> None:
    x = normal(40, 3, 0)
    assert root_mean_square_distance(x) == pytest.approx(float(np.sqrt((pdist(x) ** 2).mean())), rel=1e-12)


@pytest.mark.parametrize("degrade", [blurred, noisy])
def test_distances_in_features_rise_with_the_damage(
    digits: Tensor, extract: Callable[[Tensor], Activations], degrade: Callable[[Tensor, float], Tensor]
) -> None:
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    reference = extract(digits[order[:1000]]).features
    rest = digits[order[1000:2000]]
    amounts = (3, 5, 7) if degrade is blurred else (0.1, 0.2, 0.4)
    seen = [extract(images).features for images in (rest, *(degrade(rest, amount) for amount in amounts))]
    for distance in (frechet_distance, kernel_distance, exact_wasserstein):
        scores = [distance(features, reference) for features in seen]
        assert scores == sorted(scores)
        # The exact distance has a large floor of sampling noise.
        assert distance is exact_wasserstein or scores[1] > 2 * max(scores[0], 0)
