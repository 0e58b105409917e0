"""From text to a prior: `sphere`, `dirichlet:0.2`, `mixture:10`, `Laplace(0,1)`, `sphere@10*normal@3`."""

import inspect
import math
import re
from typing import Any

import torch
from torch import distributions

from sinkdiv.generative.errors import InputError
from sinkdiv.generative.priors.base import Prior
from sinkdiv.generative.priors.custom import FromDistribution
from sinkdiv.generative.priors.named import Dirichlet, Mixture, Normal, Sphere, Torus, Uniform
from sinkdiv.generative.priors.product import Product

#: Priors by name; a new one is a class and a line here.
PRIORS: dict[str, type[Prior]] = {
    "normal": Normal,
    "sphere": Sphere,
    "uniform": Uniform,
    "torus": Torus,
    "dirichlet": Dirichlet,
    "mixture": Mixture,
}

_ABSTRACT = (distributions.Distribution, distributions.ExponentialFamily)
_CALL = re.compile(r"(\w+)\(([^()]*)\)")


def make_prior(text: str) -> Prior:
    """The prior that `text` describes.

    A prior is a name of `PRIORS`, with a number after a colon where it has one (`dirichlet:0.2`); or a distribution of
    one real number in `torch.distributions`, with its parameters, which all coordinates then have independently
    (`Laplace(0,1)`). A product joins priors by `*`, each followed by `@` and its number of latent dimensions
    (`sphere@10*Beta(2,2)@3`).

    Raises:
        InputError: saying what is wrong and what could stand there.
    """
    if "*" not in text and "@" not in text:
        return _named(text, text)
    return Product(*(_part(part.strip(), text) for part in text.split("*")))


def _part(part: str, text: str) -> tuple[Prior, int]:
    name, _, dim = part.partition("@")
    if not (dim.isascii() and dim.isdigit()):
        raise InputError(f"--prior {text}: each factor needs its dimension, like sphere@10, not {part!r}")
    return _named(name, text), int(dim)


def _named(described: str, text: str) -> Prior:
    if written := _CALL.fullmatch(described):
        return FromDistribution(_distribution(written[1], written[2], text))
    name, colon, parameter = described.partition(":")
    if name not in PRIORS:
        raise InputError(
            f"--prior {text}: unknown prior; choose one of {', '.join(PRIORS)}, or a distribution like Laplace(0,1)"
        )
    kind: Any = PRIORS[name]
    if not colon:
        prior: Prior = kind()
        return prior
    if kind.parameter is None:
        raise InputError(f"--prior {text}: {name} takes no parameter")
    try:
        number = float(parameter)
    except ValueError:
        raise InputError(f"--prior {text}: {parameter!r} is no {kind.parameter}") from None
    prior = kind(number)
    return prior


def _distribution(name: str, numbers: str, text: str) -> distributions.Distribution:
    kind = getattr(distributions, name, None) if name in distributions.__all__ else None
    if not (inspect.isclass(kind) and issubclass(kind, distributions.Distribution)) or kind in _ABSTRACT:
        raise InputError(f"--prior {text}: there is no {name} in torch.distributions")
    try:
        values = [float(number) for number in numbers.split(",")]
    except ValueError:
        raise InputError(f"--prior {text}: expected numbers in {name}({numbers})") from None
    names = [parameter for parameter in inspect.signature(kind).parameters if parameter != "validate_args"]
    made = _made(kind, dict(zip(names, values, strict=False)))
    if made is None or len(values) > len(names) or not all(map(math.isfinite, values)):
        raise InputError(f"--prior {text}: {name}({', '.join(names)}) cannot be made of these numbers")
    if made.support.is_discrete or made.batch_shape or made.event_shape:
        raise InputError(f"--prior {text}: {name} is not a distribution of one real number")
    if not _has_finite_variance(made):
        raise InputError(f"--prior {text}: {name}({numbers}) has no finite variance, and so no scale")
    distribution: distributions.Distribution = made
    return distribution


def _made(kind: Any, parameters: dict[str, float]) -> Any:
    """The distribution with these parameters, or None if it cannot have them."""
    try:
        return kind(**{name: torch.tensor(value) for name, value in parameters.items()}, validate_args=True)
    # Which one depends on what a constructor tries first with arguments that are not meant for it.
    except (ValueError, TypeError, AttributeError, AssertionError, RuntimeError):
        return None


def _has_finite_variance(distribution: distributions.Distribution) -> bool:
    try:
        return bool(distribution.variance.isfinite())
    # Some distributions have a variance that PyTorch does not know: draws will tell how far apart they are.
    except NotImplementedError:
        return True
