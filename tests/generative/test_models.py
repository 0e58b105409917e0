"""Models from outside: each method with each prior, wrong options, and losses against independent answers."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import cdist
from torch import Tensor, nn

from generative_models import settled, sinkhorn_loss
from sinkdiv.cli.app import run
from sinkdiv.generative.config import AutoencoderConfig, GeneratorConfig
from sinkdiv.generative.critic import features, slope_penalty
from sinkdiv.generative.failures import FailureDetector, TrainingFailure
from sinkdiv.generative.latent_losses import EnergyLoss, HungarianLoss
from sinkdiv.generative.latent_losses.mmd import imq_mmd
from sinkdiv.generative.methods import METHODS, compared, paper_beta
from sinkdiv.generative.models.autoencoder import Autoencoder
from sinkdiv.generative.models.generator import SinkhornGenerator
from sinkdiv.generative.posteriors import divergence_from_uniform, sample_angle
from sinkdiv.generative.priors import PRIORS, Sphere, make_prior
from sinkdiv.generative.seeds import Stream

RUN: dict[str, Any] = {
    "data": "",
    "data_fingerprint": "",
    "image_shape": (1, 3, 3),
    "binarize": False,
    "batch_size": 8,
    "lr": 1e-3,
    "max_epochs": 1,
    "seed": 0,
    "network": "mlp",
    "hidden": (7,),
}
AUTOENCODER = RUN | {"likelihood": "bernoulli", "beta": 1.0, "eps": 0.5}
GENERATOR = RUN | {"prior": "normal", "latent_dim": 3, "width": 8, "critic_features": 4}
NAMES_OF_PRIORS = ("normal", "sphere", "uniform", "torus", "dirichlet:0.2", "mixture:3", "sphere@4*normal@2")


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=source(seed), dtype=torch.float64)


PAIRS = [
    (name, prior)
    for name, entry in METHODS.items()
    for prior in NAMES_OF_PRIORS
    if prior in (entry.priors or NAMES_OF_PRIORS)
]


@pytest.mark.parametrize(("method", "prior"), PAIRS)
def test_every_method_gives_codes_on_the_support_and_gradients_to_every_encoder_weight(method: str, prior: str) -> None:
    model = Autoencoder(AutoencoderConfig(**AUTOENCODER, method=method, prior=prior, latent_dim=6))
    images = torch.rand(8, 9, generator=source())
    codes, latent = model.method.codes_and_loss(model.encoder(images), lambda stream: source(int(stream)))
    assert torch.isfinite(latent)
    (latent + model.reconstruction_loss(codes, images)).backward()
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in model.parameters())
    code = model.encode(images)
    for part, factor in model.prior.factors(6):
        support = {"Sphere": _is_unit, "Dirichlet": _is_simplex, "Uniform": _is_cube, "Torus": _is_torus}
        assert support.get(type(factor).__name__, torch.isfinite)(code[:, part]).all()


class Shell(Sphere):
    """Uniform on the sphere of radius 2."""

    def project(self, outputs: Tensor) -> Tensor:
        return 2 * super().project(outputs)

    def sample(self, count: int, dim: int, generator: torch.Generator) -> Tensor:
        return 2 * super().sample(count, dim, generator)

    def mean_squared_distance(self, dim: int) -> float:
        return 4 * super().mean_squared_distance(dim)


def test_a_new_method_and_a_new_prior_are_a_line_in_their_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of the means, on a sphere of radius 2, whose 4·2 sets the weight: 200/8."""
    monkeypatch.setitem(PRIORS, "shell", Shell)
    means = compared("means", lambda prior, dim: lambda z, y, _: (z.mean(0) - y.mean(0)).square().sum(), paper_beta)
    monkeypatch.setitem(METHODS, "means", means)
    config = settled(AutoencoderConfig, (1, 3, 3), method="means", prior="shell", hidden=(7,))
    assert config.beta == pytest.approx(25)
    model = Autoencoder(config)
    codes, latent = model.method.codes_and_loss(model.encoder(torch.rand(8, 9)), lambda stream: source(int(stream)))
    torch.testing.assert_close(codes.norm(dim=1), torch.full((8,), 2.0))
    draws = model.prior.sample(8, config.latent_dim, source(int(Stream.PRIOR)))
    torch.testing.assert_close(latent, (codes.mean(0) - draws.mean(0)).square().sum())


def _is_unit(points: Tensor) -> Tensor:
    return (points.norm(dim=-1) - 1).abs() < 1e-5


def _is_torus(points: Tensor) -> Tensor:
    return _is_unit(points.unflatten(-1, (-1, 2)))


def _is_simplex(points: Tensor) -> Tensor:
    return ((points.sum(-1) - 1).abs() < 1e-5) & (points >= 0).all(-1)


def _is_cube(points: Tensor) -> Tensor:
    return (points >= 0) & (points <= 1)


@pytest.mark.parametrize("prior", NAMES_OF_PRIORS)
def test_the_distance_that_sets_the_defaults_is_that_of_the_draws(prior: str) -> None:
    made = make_prior(prior)
    draws = made.sample(50_000, 6, source()).double()
    # The variance of 50,000 draws is known to about 1 %.
    assert 2 * float(draws.var(0).sum()) == pytest.approx(made.mean_squared_distance(6), rel=0.02)


@pytest.mark.parametrize("value", ["entropic", "sharp"])
def test_independent_debiasing_has_mean_zero_where_the_laws_are_equal(value: str) -> None:
    loss_of = sinkhorn_loss(4.0, value=value, debias="independent", tol=1e-3)
    values = [float(loss_of(normal(32, 8, seed=k), normal(32, 8, seed=1000 + k), source())) for k in range(100)]
    deviations = np.mean(values) / (np.std(values) / math.sqrt(len(values)))
    assert abs(deviations) < 4


@pytest.mark.parametrize("debias", ["self", "none"])
@pytest.mark.parametrize("eps", [0.1, 10.0])
def test_rounding_changes_nothing_where_the_marginals_hold(debias: str, eps: float) -> None:
    x, y = normal(20, 3, seed=1), normal(20, 3, seed=2)
    rounded, plain = (
        float(sinkhorn_loss(eps, value="sharp", debias=debias, rounding=flag, tol=1e-10)(x, y, source()))
        for flag in (True, False)
    )
    assert rounded == pytest.approx(plain, rel=1e-7)


def test_the_sinkhorn_loss_lies_between_its_limits() -> None:
    """ε → 0 is the Hungarian loss, ε → ∞ under the Euclidean cost half the energy distance (Feydy et al. 2019)."""
    x, y = normal(20, 3, seed=1), normal(20, 3, seed=2)
    exact = float(HungarianLoss()(x, y, source()))
    # 0 ≤ OT_ε − OT_0 ≤ ε log n
    assert 0 <= float(sinkhorn_loss(1e-3, debias="none", tol=1e-5)(x, y, source())) - exact <= 1e-3 * math.log(20)
    energy = cdist(x, y).mean() - cdist(x, x).mean() / 2 - cdist(y, y).mean() / 2
    assert float(EnergyLoss()(x, y, source())) == pytest.approx(energy, rel=1e-9)
    far = sinkhorn_loss(1e5, latent_cost="euclidean", tol=1e-12)(x, y, source())
    assert float(far) == pytest.approx(energy, rel=1e-3)


def test_the_multiquadric_mmd_is_unbiased() -> None:
    values = [float(imq_mmd(normal(20, 4, seed=k), normal(30, 4, seed=5000 + k), 8.0)) for k in range(300)]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(len(values))


@pytest.mark.parametrize("dim", [2, 3, 10, 40])
@pytest.mark.parametrize("concentration", [1.0, 20.0, 1e4])
def test_von_mises_fisher_posteriors_are_scipys(dim: int, concentration: float) -> None:
    law = stats.vonmises_fisher(np.eye(dim)[0], concentration)
    area = math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)
    kappa = torch.full((2000,), concentration, dtype=torch.float64)
    assert float(divergence_from_uniform(kappa[:1], dim)) == pytest.approx(area - law.entropy(), rel=1e-6, abs=1e-6)
    angles = sample_angle(kappa, torch.rand(2000, generator=source(), dtype=torch.float64), dim)
    theirs = law.rvs(2000, random_state=np.random.default_rng(0))[:, 0]
    assert stats.ks_2samp(angles.cos().numpy(), theirs).pvalue > 1e-3


@pytest.mark.parametrize(
    "settings",
    [
        {"cost": "learned", "eps": math.inf},
        {"cost": "learned", "eps": 0.3},
        {"cost": "learned", "eps": 0.3, "value": "entropic"},
        {"cost": "learned", "eps": 0.3, "derivative": "unrolled", "iterations": 12},
        {"cost": "sqeuclidean", "eps": 0.05},
        {"cost": "euclidean", "eps": 0.05, "derivative": "unrolled", "iterations": 12},
    ],
    ids=str,
)
def test_the_gradient_of_a_generators_step_is_that_of_finite_differences(settings: dict[str, Any]) -> None:
    """From both networks' weights through samples, features and transport to the loss, in float64."""
    model = _precise_generator(**settings)
    latents, data = normal(8, 3, seed=1), torch.rand(9, 9, generator=source(2), dtype=torch.float64)

    def loss() -> Tensor:
        samples = model.network(latents)
        return model.loss(samples, data) if model.critic is None else model.loss(*features(model.critic, samples, data))

    loss().backward()
    for weight in model.parameters():
        assert weight.grad is not None
        place = (weight.numel() - 1) // 2
        slope = _central_difference(loss, weight, place)
        assert float(weight.grad.flatten()[place]) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def _precise_generator(**settings: Any) -> SinkhornGenerator:
    model = SinkhornGenerator(GeneratorConfig(**GENERATOR, critic_bound="clip", **settings)).double()
    model.loss = dataclasses.replace(model.loss, tol=1e-12)
    return model


@torch.no_grad()
def _central_difference(loss: Callable[[], Tensor], weight: Tensor, place: int, step: float = 1e-5) -> float:
    entry = weight.view(-1)[place : place + 1]
    kept = entry.clone()
    values = []
    for shift in (step, -step):
        entry.copy_(kept + shift)
        values.append(float(loss()))
    entry.copy_(kept)
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("slope", [1.0, 3.0])
def test_the_penalty_of_a_scaled_identity_is_known(slope: float) -> None:
    """|s x − s y| grows with slope s: the penalty is (s − 1)²."""
    critic = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        critic.weight.copy_(slope * torch.eye(4))
    ends = torch.rand(5, 4, generator=source()), torch.rand(7, 4, generator=source(1))
    penalty = slope_penalty(critic, *ends, source()).detach()
    assert float(penalty) == pytest.approx((slope - 1) ** 2, abs=1e-5)


def test_the_detector_knows_samples_that_came_apart_and_collapsed() -> None:
    detector = FailureDetector(data_distance=2.0, grace=100)
    apart = torch.randn(50, 4, generator=source())
    alike = 1 + 1e-3 * apart
    with pytest.raises(TrainingFailure, match="collapsed"):
        detector.check_samples(1, torch.ones(50, 4))
    detector.check_samples(1, alike)
    detector.check_samples(2, apart)
    with pytest.raises(TrainingFailure, match="collapsed"):
        detector.check_samples(3, alike)
    with pytest.raises(TrainingFailure, match="not finite"):
        detector.check_samples(4, apart * math.nan)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--prior torus --latent-dim 3", "--latent-dim"),
        ("--prior sphere --latent-dim 1", "--latent-dim"),
        ("--prior sphere@4*normal@3 --latent-dim 8", "--latent-dim"),
        ("--prior mixture:0", "--prior"),
        ("--prior dirichlet:nan", "--prior"),
        ("--eps nan", "--eps"),
        ("--blur 0", "--blur"),
        ("--iterations 5", "--iterations"),
        ("--derivative unrolled", "--iterations"),
        ("--debias none --rounding", "--rounding"),
        ("--rounding --value sharp --warm-start", "--rounding"),
        ("--warm-start --debias independent", "--warm-start"),
        ("--warm-start --value sharp --derivative unrolled --iterations 5", "--warm-start"),
        ("--method hvae --prior normal", "--prior"),
        ("--method wae --latent-cost euclidean", "--latent-cost"),
        ("--network spatial-transformer", "--network"),
        ("--batch-size 1000", "--batch-size"),
    ],
)
def test_a_wrong_option_of_an_autoencoder_is_one_line(
    tiny: str, tmp_path: Path, options: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = [] if "--batch-size" in options else ["--batch-size", "16"]
    _refused(["train", "autoencoder", "--data", tiny, *batch, *options.split()], tmp_path, named, capsys)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--eps 0", "--eps"),
        ("--eps inf", "--eps"),
        ("--critic-steps 3", "--critic-steps"),
        ("--cost learned --critic-bound none", "--critic-bound"),
        ("--cost learned --devices 2", "--devices"),
        ("--width 8", "--width"),
        ("--debias independent", "--debias"),
        ("--prior torus --latent-dim 3", "--latent-dim"),
    ],
)
def test_a_wrong_option_of_a_generator_is_one_line(
    tiny: str, tmp_path: Path, options: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data", tiny, "--network", "mlp", "--batch-size", "16", *options.split()]
    _refused(["train", "generator", *given], tmp_path, named, capsys)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Forty grey images of 8×8."""
    path = tmp_path_factory.mktemp("data") / "tiny.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8))
    return str(path)


def _refused(arguments: list[str], tmp_path: Path, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*arguments, "--out", str(tmp_path / "run")]) == 2
    line = capsys.readouterr().err
    assert line.startswith("sinkdiv: ")
    assert line.count("\n") == 1
    assert named in line
    assert not (tmp_path / "run").exists()
