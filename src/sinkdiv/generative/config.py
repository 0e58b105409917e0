"""What a training run is: its settings, checked once, and the file they are kept in."""

import abc
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import yaml

from sinkdiv.generative.critic import check_bound
from sinkdiv.generative.dcgan import stages
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.files import write_text
from sinkdiv.generative.generator_loss import LEARNED, GeneratorLoss
from sinkdiv.generative.methods import METHODS, check_method
from sinkdiv.generative.networks import NETWORKS
from sinkdiv.generative.priors import Sphere, make_prior

ACCELERATORS = ("auto", "cpu", "gpu")
PRECISIONS = ("float32", "bfloat16", "float16")
LIKELIHOODS = ("bernoulli", "gaussian")
VALUES = ("entropic", "sharp")
DEBIASING = ("self", "independent", "none")
DERIVATIVES = ("auto", "implicit", "unrolled")
MOST_DIMENSIONS = 65_536
LATENT_COSTS = ("sqeuclidean", "euclidean", "geodesic")
GENERATOR_NETWORKS = ("mlp", "dcgan")
GENERATOR_DEBIASING = ("self", "none")
OPTIMIZERS = ("adam", "rmsprop")


@dataclass(frozen=True, kw_only=True)
class RunConfig(abc.ABC):
    """What every run has; with its model's own settings, everything that decides where it ends.

    Attributes:
        data: a data set's name, or the absolute path of a folder, zip or array of images.
        data_fingerprint: digest of the images, so that a run is not continued on others.
        image_shape: (channels, height, width).
        binarize: whether pixels are rounded to 0 and 1.
        batch_size: images in a step, over all devices.
        lr: the optimiser's step size at the start.
        max_epochs: passes over the training images.
        seed: of the weights, the order of the images and every draw.
        accelerator: auto, cpu or gpu.
        devices: processes on this machine that share each batch. Losses see all of it; batch normalisation does on
            GPUs, on CPUs it sees a process' own part.
        precision: of the networks, float32, or mixed with bfloat16 or float16; losses are always float32.
    """

    model: ClassVar[str]

    data: str
    data_fingerprint: str
    image_shape: tuple[int, ...]
    binarize: bool
    batch_size: int
    lr: float
    max_epochs: int
    seed: int
    accelerator: str = "auto"
    devices: int = 1
    precision: str = "float32"

    def __post_init__(self) -> None:
        require(len(self.image_shape) == 3, "image_shape", self.image_shape, "channels, height and width")
        require(self.batch_size >= 2, "--batch-size", self.batch_size, "at least 2")
        require(0 < self.lr < math.inf, "--lr", self.lr, "a finite number above zero")
        require(self.max_epochs >= 1, "--max-epochs", self.max_epochs, "at least 1")
        require(0 <= self.seed < 2**63, "--seed", self.seed, "between 0 and 2^63 - 1")
        require_one_of(ACCELERATORS, "--accelerator", self.accelerator)
        require(self.devices >= 1, "--devices", self.devices, "at least 1")
        require(self.batch_size % self.devices == 0, "--batch-size", self.batch_size, f"a multiple of {self.devices}")
        require_one_of(PRECISIONS, "--precision", self.precision)

    @staticmethod
    def _require_one_derivative(value: str, derivative: str, iterations: int) -> None:
        unrolled = derivative == "unrolled"
        require((iterations > 0) == unrolled, "--iterations", iterations, "--derivative unrolled and a number")
        require(derivative != "implicit" or value == "sharp", "--derivative", "implicit", "--value sharp")

    @property
    def pixels(self) -> int:
        """Numbers in one image, over all channels."""
        return math.prod(self.image_shape)

    @property
    def turns(self) -> int:
        """Batches for one step of the network that makes images."""
        return 1

    @property
    def trains_samples(self) -> bool:
        """Whether draws from the prior are trained to become images: those of a plain autoencoder are not."""
        return True

    @property
    @abc.abstractmethod
    def described(self) -> tuple[str, str]:
        """A title and a line about the model, for reports."""

    def save(self, path: Path) -> None:
        """Write the settings to `path` as YAML, atomically."""
        content = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        write_text(path, yaml.safe_dump({"model": self.model} | content, sort_keys=False))


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(RunConfig):
    """An autoencoder whose codes follow a prior.

    Attributes:
        method: how the codes are made to follow it: a name in `methods.METHODS`.
        prior: what they follow, in the words of `priors.make_prior`.
        latent_dim: dimension d of the codes.
        network: name of the encoder and decoder.
        hidden: widths of the encoder's hidden layers; the decoder mirrors them.
        likelihood: of the pixels; bernoulli counts cross-entropy, gaussian squared errors, summed over pixels.
        beta: weight of the latent loss against the reconstruction.
        eps: regularisation of the Sinkhorn divergence between codes and prior, in units of the latent cost.
        latent_cost: sqeuclidean, euclidean, or geodesic (squared arc length on the sphere).
        value: entropic or sharp.
        debias: how the transport cost is made a divergence: self, independent or none (`matching.SinkhornMatching`).
        derivative: of the value: auto, implicit or unrolled.
        iterations: of an unrolled derivative; 0 for the others, which run until they converge.
        rounding: the sharp value of the plan rounded to exact marginals (P19).
        warm_start: each solve starts from the potentials of the one before.
    """

    model = "autoencoder"

    method: str
    prior: str
    latent_dim: int
    network: str
    hidden: tuple[int, ...]
    likelihood: str
    beta: float
    eps: float
    latent_cost: str = "sqeuclidean"
    value: str = "entropic"
    debias: str = "self"
    derivative: str = "auto"
    iterations: int = 0
    rounding: bool = False
    warm_start: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.latent_dim <= MOST_DIMENSIONS, "--latent-dim", self.latent_dim, f"1 to {MOST_DIMENSIONS}")
        prior = make_prior(self.prior)
        prior.check(self.latent_dim)
        check_method(self.method, self.prior)
        require_one_of(tuple(NETWORKS), "--network", self.network)
        require(len(self.hidden) > 0 and min(self.hidden) >= 1, "--hidden", self.hidden, "widths like 512,512")
        require_one_of(LIKELIHOODS, "--likelihood", self.likelihood)
        require(0 <= self.beta < math.inf, "--beta", self.beta, "zero or a finite number above it")
        require(0 < self.eps < math.inf, "--eps", self.eps, "a finite number above zero")
        require_one_of(LATENT_COSTS, "--latent-cost", self.latent_cost)
        require_one_of(VALUES, "--value", self.value)
        require_one_of(DEBIASING, "--debias", self.debias)
        require_one_of(DERIVATIVES, "--derivative", self.derivative)
        self._require_one_derivative(self.value, self.derivative, self.iterations)
        if self.latent_cost == "geodesic":
            spheres = all(isinstance(factor, Sphere) for _, factor in prior.factors(self.latent_dim))
            require(spheres, "--latent-cost", "geodesic", f"--prior sphere, not {self.prior}")
        if self.rounding:
            require(self.value == "sharp", "--value", self.value, "sharp, for --rounding")

    @property
    def trains_samples(self) -> bool:
        return self.beta > 0

    @property
    def described(self) -> tuple[str, str]:
        title = f"{METHODS[self.method].title[0].upper()}{METHODS[self.method].title[1:]} on {self.data}"
        regularised = f", ε = {self.eps:g}" if self.method == "sae" else ""
        return title, f"{self.prior} prior in {self.latent_dim} dimensions, β = {self.beta:g}{regularised}"


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(RunConfig):
    """A generator trained to minimise a Sinkhorn divergence between its samples and data (G18).

    Attributes:
        prior: of the latents, in the words of `priors.make_prior`.
        latent_dim: their dimension d.
        network: mlp or dcgan, of the generator and of the critic.
        hidden: widths of the MLP's hidden layers; the critic mirrors them.
        width: channels of DCGAN's finest stage.
        cost: sqeuclidean, euclidean, or learned, the distance of features that a critic makes of the images.
        eps: regularisation, in units of the cost; infinite is the MMD, the energy distance.
        value: sharp (G18) or entropic.
        debias: self, the divergence; or none.
        derivative: of the value: auto, implicit or unrolled (G18).
        iterations: of an unrolled derivative (G18: 10 to 100); 0 for the others, which run until they converge.
        critic_features: dimension of the learned cost's features.
        critic_steps: steps of the critic for each of the generator (G18's n_c), each on a batch of its own.
        critic_bound: what keeps the critic bounded: clip (G18), penalty or spectral.
        optimizer: of both networks, adam or rmsprop.
    """

    model = "generator"

    prior: str
    latent_dim: int
    network: str
    hidden: tuple[int, ...]
    eps: float
    width: int = 64
    cost: str = "sqeuclidean"
    value: str = "sharp"
    debias: str = "self"
    derivative: str = "auto"
    iterations: int = 0
    critic_features: int = 16
    critic_steps: int = 1
    critic_bound: str = "spectral"
    optimizer: str = "adam"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.latent_dim <= MOST_DIMENSIONS, "--latent-dim", self.latent_dim, f"1 to {MOST_DIMENSIONS}")
        make_prior(self.prior).check(self.latent_dim)
        require_one_of(GENERATOR_NETWORKS, "--network", self.network)
        require(len(self.hidden) > 0 and min(self.hidden) >= 1, "--hidden", self.hidden, "widths like 512,512")
        require(self.width >= 1, "--width", self.width, "at least 1")
        if self.network == "dcgan":
            stages(self.image_shape)
        require_one_of(VALUES, "--value", self.value)
        require_one_of(GENERATOR_DEBIASING, "--debias", self.debias)
        require_one_of(DERIVATIVES, "--derivative", self.derivative)
        self._require_one_derivative(self.value, self.derivative, self.iterations)
        self.make_loss()
        require(self.critic_features >= 1, "--critic-features", self.critic_features, "at least 1")
        require(self.critic_steps >= 1, "--critic-steps", self.critic_steps, "at least 1")
        check_bound(self.critic_bound)
        require_one_of(OPTIMIZERS, "--optimizer", self.optimizer)
        # Losses are scaled for float16, and DistributedDataParallel expects gradients of all networks in each step.
        require(self.precision != "float16", "--precision", self.precision, "float32 or bfloat16 for a generator")
        require(self.devices == 1 or not self.learned, "--devices", self.devices, "1 for --cost learned")

    def make_loss(self) -> GeneratorLoss:
        """The divergence that is minimised; raises `InputError` for options of it that do not go together."""
        return GeneratorLoss(
            eps=self.eps,
            cost=self.cost,
            value=self.value,
            debiased=self.debias == "self",
            derivative=self.derivative,
            iterations=self.iterations or None,
        )

    @property
    def learned(self) -> bool:
        """Whether there is a critic."""
        return self.cost == LEARNED

    @property
    def turns(self) -> int:
        """The critic's batches, and the generator's own."""
        return 1 + (self.critic_steps if self.learned else 0)

    @property
    def described(self) -> tuple[str, str]:
        latents = f"{self.prior} latents in {self.latent_dim} dimensions"
        return f"Sinkhorn generator on {self.data}", f"{latents}, {self.cost} cost, ε = {self.eps:g}"


# How YAML's names of models lead to their settings; a new model adds itself here.
CONFIGS: dict[str, type[RunConfig]] = {kind.model: kind for kind in (AutoencoderConfig, GeneratorConfig)}


def load_config(path: Path) -> RunConfig:
    """Read what `RunConfig.save` wrote; raises `InputError` naming the file when it is something else."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not a readable configuration ({type(error).__name__})") from error
    kind = CONFIGS.get(str(content.pop("model", None))) if isinstance(content, dict) else None
    if kind is None:
        raise InputError(f"{path}: not the configuration of a sinkdiv run")
    names = {field.name for field in fields(kind)}
    if content.keys() != names:
        odd = sorted(str(key) for key in content.keys() ^ names)
        raise InputError(f"{path}: missing or unknown settings: {', '.join(odd)}")
    return kind(**_typed(path, kind, content))


def require(condition: bool, option: str, value: object, expected: str) -> None:
    """Raise the `InputError` of a wrong option unless `condition` holds."""
    if not condition:
        raise InputError(f"{option} {value}: expected {expected}")


def require_one_of(names: tuple[str, ...], option: str, value: str) -> None:
    """Raise the `InputError` of an unknown name unless `value` is one of `names`."""
    require(value in names, option, value, " or ".join(names))


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _integers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list):
        raise TypeError
    return tuple(_integer(value) for value in values)


_CASTS: dict[object, Callable[[Any], Any]] = {
    int: _integer,
    float: float,
    str: str,
    tuple[int, ...]: _integers,
}


def _typed(path: Path, kind: type[RunConfig], content: dict[str, Any]) -> dict[str, Any]:
    """YAML's values as the types of the fields, refusing what cannot be meant (`latent_dim: ten`)."""
    typed: dict[str, Any] = {}
    for field in fields(kind):
        value = content[field.name]
        try:
            if field.type is bool and not isinstance(value, bool):
                raise TypeError
            typed[field.name] = value if field.type is bool else _CASTS[field.type](value)
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: {field.name}: {value!r} is not valid") from error
    return typed
