"""The Sinkhorn generator (G18): its loss and limits, learned costs, training, and how failures are found."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor, nn

import sinkdiv
from generative_models import generator_loss
from sinkdiv.generative.config import GeneratorConfig
from sinkdiv.generative.critic import CLIP, features, normalise, slope_penalty
from sinkdiv.generative.data import Rows
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.failures import FailureDetector, TrainingFailure
from sinkdiv.generative.models.generator import SinkhornGenerator
from sinkdiv.generative.networks import dcgan
from sinkdiv.generative.networks.perceptron import mlp
from sinkdiv.generative.seeds import Stream, generator
from sinkdiv.generative.tensors import mean_squared_distance

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SHAPE = (1, 4, 4)


def cloud(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(cost: str = "sqeuclidean", eps: float = 0.5, **settings: Any) -> GeneratorConfig:
    given: dict[str, Any] = {
        "data": "made", "data_fingerprint": "", "image_shape": SHAPE, "binarize": False, "batch_size": 32, "lr": 1e-3,
        "max_epochs": 1, "seed": 0, "prior": "uniform", "latent_dim": 2, "network": "mlp", "hidden": (16,), "width": 8,
    }  # fmt: skip
    return GeneratorConfig(**given | {"cost": cost, "eps": eps} | settings)


def loader(data: Tensor, batch_size: int = 32) -> torch.utils.data.DataLoader[Tensor]:
    batches = torch.arange(len(data)).split(batch_size)
    return torch.utils.data.DataLoader(Rows(data), sampler=list(batches), batch_size=None, generator=torch.Generator())


def quiet_trainer(epochs: int, *callbacks: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=list(callbacks), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


def fit(model: SinkhornGenerator, data: Tensor, epochs: int = 1, *callbacks: Any) -> SinkhornGenerator:
    model.total_steps = 10**6  # a step size that stays
    quiet_trainer(epochs, *callbacks).fit(model, loader(data))
    return model


def images(n: int = 128) -> Tensor:
    return torch.rand(n, 16, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("cost", ["euclidean", "learned"])
def test_at_infinite_eps_the_loss_is_the_energy_distance(cost: str) -> None:
    """½(2E|x−y| − E|x−x'| − E|y−y'|), by scipy's distances."""
    x, y = cloud(30, 5, 0), cloud(40, 5, 1) + 0.5
    energy = cdist(x, y).mean() - cdist(x, x).mean() / 2 - cdist(y, y).mean() / 2
    assert float(generator_loss(math.inf, cost)(x, y)) == pytest.approx(energy, rel=1e-12)


@pytest.mark.parametrize("value", ["sharp", "entropic"])
def test_a_large_eps_comes_close_to_the_energy_distance_as_one_over_eps(value: str) -> None:
    x, y = cloud(30, 5, 0), cloud(40, 5, 1) + 0.5
    limit = generator_loss(math.inf, "euclidean")(x, y)
    errors = [abs(float(generator_loss(eps, "euclidean", 1e-10, value=value)(x, y) - limit)) for eps in (100, 1000)]
    assert errors[0] < 0.1 * float(limit)
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.1)


def test_a_small_eps_comes_close_to_optimal_transport() -> None:
    """By linear assignment; the self terms of the limit are zero."""
    x, y = cloud(30, 3, 0), cloud(30, 3, 1) + 1
    costs = cdist(x, y, "sqeuclidean")
    exact = costs[linear_sum_assignment(costs)].mean()
    assert float(generator_loss(1e-3, tol=1e-4)(x, y)) == pytest.approx(exact, rel=1e-3)


def test_without_debiasing_a_sample_is_not_at_distance_zero_of_itself() -> None:
    x = cloud(30, 3, 0)
    assert abs(float(generator_loss(1.0, tol=1e-8)(x, x))) < 1e-9
    assert float(generator_loss(1.0, debias="none")(x, x)) > 0.1


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean"])
def test_many_iterations_unrolled_approach_the_exact_derivative(cost: str) -> None:
    """In 20 dimensions, where the cost matrix is formed once."""
    x, y = cloud(20, 20, 0).requires_grad_(), cloud(25, 20, 1)
    gradients = []
    for options in ({"derivative": "unrolled", "iterations": 200}, {"tol": 1e-9}):
        (gradient,) = torch.autograd.grad(generator_loss(20.0, cost, **options)(x, y), x)
        gradients.append(gradient)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"eps": 0.0}, "--eps 0.0"),
        ({"eps": math.nan}, "--eps nan"),
        ({"eps": 1.0, "cost": "cosine"}, "--cost cosine: expected sqeuclidean or euclidean or learned"),
        ({"eps": 1.0, "value": "blunt"}, "--value blunt"),
        ({"eps": 1.0, "derivative": "unrolled"}, "--iterations 0"),
        ({"eps": 1.0, "value": "entropic", "derivative": "implicit"}, "--derivative implicit: expected --value sharp"),
        ({"eps": math.inf}, "use --cost euclidean"),
        ({"eps": math.inf, "cost": "euclidean", "debias": "none"}, "a single point minimises"),
    ],
)
def test_wrong_losses_are_refused_by_name(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError) as refusal:
        generator_loss(**options)
    assert complaint in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"prior": "cauchy"}, "--prior cauchy"),
        ({"latent_dim": 0}, "--latent-dim 0"),
        ({"network": "transformer"}, "--network transformer"),
        ({"hidden": ()}, "--hidden ()"),
        ({"width": 0}, "--width 0"),
        ({"critic_bound": "hope"}, "--critic-bound hope"),
        ({"critic_steps": 0}, "--critic-steps 0"),
        ({"optimizer": "sgd"}, "--optimizer sgd"),
        ({"lr": math.inf}, "--lr inf"),
        ({"eps": math.inf}, "--eps inf"),
        ({"debias": "independent"}, "--debias independent: expected self or none"),
        ({"derivative": "unrolled"}, "--iterations 0"),
        ({"value": "entropic", "derivative": "implicit"}, "--derivative implicit"),
        ({"precision": "float16"}, "--precision float16: expected float32 or bfloat16"),
        ({"cost": "learned", "devices": 2}, "--devices 2: expected 1 for --cost learned"),
    ],
)
def test_wrong_settings_are_refused_by_name(change: dict[str, Any], option: str) -> None:
    with pytest.raises(InputError) as refusal:
        made(**change)
    assert option in str(refusal.value)


def test_images_that_cannot_be_halved_are_refused_before_anything_is_made() -> None:
    with pytest.raises(InputError, match="--network dcgan: images of 4×4"):
        SinkhornGenerator(made(network="dcgan"))


def test_the_learned_cost_is_that_of_the_library() -> None:
    """`FeatureCost`, which passes the two sides through the module one after the other."""
    critic = mlp([5, 16, 3]).double()
    x, y = cloud(20, 5, 0), cloud(25, 5, 1)
    ours = generator_loss(0.5, "learned", tol=1e-8)(*features(critic, x, y))
    cost = sinkdiv.FeatureCost(critic, cost="euclidean")
    theirs = sinkdiv.sinkhorn_divergence(x, y, eps=0.5, cost=cost, value="sharp", tol=1e-8)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)


@pytest.mark.parametrize("eps", [0.05, math.inf])
@pytest.mark.parametrize("bound", ["clip", "penalty", "spectral"])
def test_the_critic_s_turns_increase_the_divergence(bound: str, eps: float) -> None:
    """All batches of this epoch are the critic's. Clipping starts inside of the box."""
    model = SinkhornGenerator(made("learned", eps, critic_bound=bound, critic_steps=40))
    if bound == "clip":
        fit(model, images(32))  # into the box
    data, samples = images(), model.draw(128, Stream.EVALUATION).detach()
    before, untrained = model.divergence(samples, data).item(), copy.deepcopy(model.network.state_dict())
    fit(model, images(1024))
    assert model.divergence(samples, data).item() > 1.05 * before > 0
    assert all(torch.equal(untrained[name], weight) for name, weight in model.network.state_dict().items())


def test_clipping_keeps_the_critic_s_weights_in_the_box_and_no_others() -> None:
    model = fit(SinkhornGenerator(made("learned", critic_bound="clip", optimizer="rmsprop")), images())
    assert model.critic is not None
    assert all(weight.abs().max() <= CLIP for weight in model.critic.parameters())
    assert max(float(weight.detach().abs().max()) for weight in model.network.parameters()) > 10 * CLIP


def test_spectral_normalisation_makes_the_critic_a_contraction() -> None:
    """Its power iteration needs some passes; then no singular value exceeds 1 by more than 1e-3."""
    critic = mlp([16, 32, 32, 4])
    with torch.no_grad():
        for weight in critic.parameters():
            weight.mul_(10)
    normalise(critic)
    x, y = images(50), images(60)[10:]
    for _ in range(100):
        critic(x)
    for layer in critic:
        if isinstance(layer, nn.Linear):
            assert float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) <= 1 + 1e-3
    assert ((critic(x) - critic(y)).norm(dim=1) <= 1.01 * (x - y).norm(dim=1)).all()


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_penalty_of_a_scaled_isometry_is_known(scale: float) -> None:
    critic = nn.Linear(3, 3, bias=False).double()
    with torch.no_grad():
        critic.weight.copy_(scale * torch.linalg.qr(cloud(3, 3, 0))[0])
    penalty = slope_penalty(critic, cloud(8, 3, 1), cloud(9, 3, 2), torch.Generator().manual_seed(0))
    assert float(penalty) == pytest.approx((scale - 1) ** 2, abs=1e-9)


def test_the_penalty_s_gradient_is_right() -> None:
    """By central differences in float64, along a random direction of all weights: 1e-7."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        critic = nn.Sequential(nn.Linear(3, 8), nn.Softplus(), nn.Linear(8, 4)).double()
    samples, data = cloud(10, 3, 0), cloud(10, 3, 1) + 1

    def penalty() -> Tensor:
        return slope_penalty(critic, samples, data, torch.Generator().manual_seed(5))

    weights = list(critic.parameters())
    directions = [
        torch.randn(w.shape, generator=torch.Generator().manual_seed(k)).double() for k, w in enumerate(weights)
    ]
    gradients = torch.autograd.grad(penalty(), weights, allow_unused=True)
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True) if g is not None)
    ends = []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            for weight, direction in zip(weights, directions, strict=True):
                weight.add_(step * direction)
        ends.append(float(penalty()))
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-7)


def test_draws_are_pure_functions_and_leave_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    one, other = (SinkhornGenerator(made("learned", prior="normal")) for _ in range(2))
    assert torch.equal(one.draw(8, Stream.SAMPLES, 3), other.draw(8, Stream.SAMPLES, 3))
    assert not torch.equal(one.draw(8, Stream.SAMPLES, 3), one.draw(8, Stream.SAMPLES, 4))
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(state, torch.random.get_rng_state())
    uniform = SinkhornGenerator(made(latent_dim=3)).draw_latents(1000, Stream.SAMPLES)
    assert uniform.shape == (1000, 3)
    assert 0 <= uniform.min() < 0.01 < 0.99 < uniform.max() <= 1


@pytest.mark.parametrize("bound", ["clip", "penalty", "spectral"])
def test_a_resumed_training_ends_where_an_uninterrupted_one_does(bound: str, tmp_path: Path) -> None:
    """Bitwise, and the same seed gives the same result; an epoch ends between two turns of the critic."""
    settings = made("learned", critic_bound=bound, critic_steps=2, prior="normal")
    whole = SinkhornGenerator(settings, 12)
    trainer = quiet_trainer(3)
    trainer.fit(whole, loader(images()))
    assert trainer.global_step == 12

    first = quiet_trainer(2)
    first.fit(SinkhornGenerator(settings, 12), loader(images()))
    first.save_checkpoint(tmp_path / "last.ckpt")
    torch.load(tmp_path / "last.ckpt", weights_only=True)
    resumed = SinkhornGenerator(settings, 12)
    quiet_trainer(3).fit(resumed, loader(images()), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8)])
def test_convolutional_networks_train_on_flat_images(shape: tuple[int, int, int]) -> None:
    settings = made(
        "learned", image_shape=shape, network="dcgan", width=2, critic_features=3, critic_bound="clip", latent_dim=5
    )
    model = SinkhornGenerator(settings)
    data = torch.rand(8, math.prod(shape), generator=torch.Generator().manual_seed(0))
    fit(model, data.repeat(8, 1))
    samples = model.eval().draw(6, Stream.SAMPLES)
    assert samples.shape == (6, math.prod(shape))
    assert ((samples > 0) & (samples < 1)).all()
    assert model.critic is not None
    assert model.critic(data).shape == (8, 3)


def test_the_stages_of_convolutional_networks_double_the_channels() -> None:
    generator_channels = [
        layer.in_channels for layer in dcgan.generator((3, 32, 32), 5, (), 8) if isinstance(layer, nn.ConvTranspose2d)
    ]
    critic_channels = [
        layer.out_channels for layer in dcgan.critic((1, 28, 28), 2, (), 8, True) if isinstance(layer, nn.Conv2d)
    ]
    assert generator_channels == [32, 16, 8]
    assert critic_channels == [8, 16]


@pytest.mark.parametrize(("cost", "eps"), [("sqeuclidean", 0.5), ("learned", 0.5), ("euclidean", math.inf)])
def test_weights_that_overflow_end_the_training_with_a_reason(cost: str, eps: float) -> None:
    model = SinkhornGenerator(made(cost, eps, lr=1e30), 1000, mlp([2, 16, 16]))
    with pytest.raises(TrainingFailure, match="not finite"):
        fit(model, images(), 5, FailureDetector(every=1))


@pytest.mark.parametrize("largest", [math.inf, math.nan, 1e19])
def test_points_without_distances_are_a_failure_and_of_a_wrong_shape_a_defect(largest: float) -> None:
    model = SinkhornGenerator(made())
    samples = images(8)
    with pytest.raises(ValueError, match="same dimension"):
        model.divergence(samples, images(8)[:, :-1])
    samples[3, 5] = largest
    with pytest.raises(TrainingFailure, match=r"^samples are not finite, or too large"):
        model.divergence(samples, images(8))


class Broken(nn.Module):
    """Finite outputs whose derivative is not, after some passes."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.weight, self.passes, self.after = nn.Parameter(torch.ones(16)), 0, after

    def forward(self, latents: Tensor) -> Tensor:
        self.passes += 1
        broken = (self.weight - self.weight.detach()).sqrt() if self.passes > self.after else 0.0
        samples: Tensor = latents[:, :1] * self.weight + broken
        return samples


def test_a_gradient_that_is_not_finite_is_found_before_it_is_used() -> None:
    model = SinkhornGenerator(made(), 1000, Broken(after=2))
    with pytest.raises(TrainingFailure, match=r"^the gradient of network\.weight is not finite$"):
        fit(model, images(), 1, FailureDetector())
    assert all(torch.isfinite(weight).all() for weight in model.parameters())


class Shrinking(nn.Module):
    """Samples whose mean squared distance falls tenfold in each pass."""

    def __init__(self, distance: float) -> None:
        super().__init__()
        self.weight, self.distance = nn.Parameter(torch.ones(16)), distance

    def forward(self, latents: Tensor) -> Tensor:
        self.distance /= 10
        samples: Tensor = latents[:, :1] * self.weight * self.distance**0.5
        return samples


def detector(data: Tensor, **options: Any) -> FailureDetector:
    distance = mean_squared_distance(data)
    return FailureDetector(lambda model, step: model.draw(64, Stream.EVALUATION, step), distance, every=1, **options)


def test_samples_that_fall_together_end_the_training_with_a_reason() -> None:
    data = images()
    with pytest.raises(TrainingFailure, match=r"^samples have collapsed: .* the data's 2\.\d"):
        fit(SinkhornGenerator(made(), 1000, Shrinking(100.0)), data, 1, detector(data))


def test_samples_that_have_never_been_apart_are_given_some_time() -> None:
    data = images()
    model = SinkhornGenerator(made(), 1000, Shrinking(1e-6))
    fit(model, data, 1, detector(data, grace=10))
    with pytest.raises(TrainingFailure, match="collapsed"):
        fit(SinkhornGenerator(made(), 1000, Shrinking(1e-6)), data, 1, detector(data, grace=3))


def test_samples_that_stay_near_the_limit_have_not_fallen() -> None:
    """From 1.2 to .9 times it, as untrained convolutional networks may."""
    one = FailureDetector(data_distance=1.0)
    points = (torch.arange(2.0) - 0.5)[:, None]  # E|x−x'|² = ½
    for found in (0.012, 0.009, 0.011):
        one.check_samples(10, points * (2 * found) ** 0.5)
    one.check_samples(11, points)
    with pytest.raises(TrainingFailure, match="collapsed"):
        one.check_samples(12, points * 0.018**0.5)


def test_a_healthy_training_is_left_alone() -> None:
    data = images()
    assert mean_squared_distance(data) == pytest.approx(cdist(data, data, "sqeuclidean").mean(), rel=1e-6)
    fit(SinkhornGenerator(made("learned")), data, 3, detector(data))


@pytest.mark.parametrize(("cost", "eps"), [("sqeuclidean", 0.1), ("euclidean", math.inf)])
def test_a_small_generator_learns_a_mixture_in_the_plane(cost: str, eps: float) -> None:
    """W2² to other points of the target, by linear assignment: 2 at the start; its own fresh samples get .05 to .18."""

    def target(n: int, seed: int) -> Tensor:
        source = generator(seed, Stream.SPLIT)
        centres = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
        return centres[torch.randint(4, (n,), generator=source)] + 0.1 * torch.randn(n, 2, generator=source)

    settings = made(cost, eps, image_shape=(1, 1, 2), prior="normal", lr=5e-3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = mlp([2, 64, 64, 2])
    model = SinkhornGenerator(settings, 250, network)

    def w2(points: Tensor) -> float:
        costs = cdist(points.detach(), target(600, 1), "sqeuclidean")
        return float(costs[linear_sum_assignment(costs)].mean())

    assert w2(model.draw(600, Stream.EVALUATION)) > 1
    quiet_trainer(1).fit(model, loader(target(128 * 250, 0), 128))
    assert w2(model.draw(600, Stream.EVALUATION)) < 0.25
