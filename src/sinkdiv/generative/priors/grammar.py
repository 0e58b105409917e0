"""From text to a prior: `sphere`, `dirichlet:0.2`, `mixture:10`, `sphere@10*normal@3`."""

from collections.abc import Callable

from sinkdiv.generative.errors import InputError
from sinkdiv.generative.priors.named import Dirichlet, Mixture, Normal, Sphere, Torus, Uniform
from sinkdiv.generative.priors.prior import Prior
from sinkdiv.generative.priors.product import Product

#: Priors by name; those in `PARAMETERS` are made of one number, or of none.
PRIORS: dict[str, Callable[..., Prior]] = {
    "normal": Normal,
    "sphere": Sphere,
    "uniform": Uniform,
    "torus": Torus,
    "dirichlet": Dirichlet,
    "mixture": Mixture,
}

#: What the number after the colon is.
PARAMETERS = {"dirichlet": "concentration", "mixture": "number of modes"}


def make_prior(text: str) -> Prior:
    """The prior that `text` describes.

    A prior is a name of `PRIORS`, with a number after a colon where it has one (`dirichlet:0.2`). A product joins
    priors by `*`, each followed by `@` and its number of latent dimensions (`sphere@10*normal@3`).

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
    name, colon, parameter = described.partition(":")
    if name not in PRIORS:
        raise InputError(f"--prior {text}: unknown prior; choose one of {', '.join(PRIORS)}")
    if not colon:
        return PRIORS[name]()
    if name not in PARAMETERS:
        raise InputError(f"--prior {text}: {name} takes no parameter")
    try:
        number = float(parameter)
    except ValueError:
        raise InputError(f"--prior {text}: {parameter!r} is no {PARAMETERS[name]}") from None
    return PRIORS[name](number)
