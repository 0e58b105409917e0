"""Distributions that a latent space is trained to follow, each with the map that sends an encoder's output there.

- `base`     what a prior is
- `named`    those that have a name: normal, sphere, uniform, torus, dirichlet, mixture
- `custom`   any distribution of `torch.distributions`, any sampler
- `product`  independent blocks of coordinates
- `parsing`  from text to a prior; the table of names
"""

from sinkdiv.generative.priors.base import Prior
from sinkdiv.generative.priors.custom import FromDistribution, FromSampler
from sinkdiv.generative.priors.named import Dirichlet, Mixture, Normal, Sphere, Torus, Uniform
from sinkdiv.generative.priors.parsing import PRIORS, make_prior
from sinkdiv.generative.priors.product import Product

__all__ = [
    "PRIORS",
    "Dirichlet",
    "FromDistribution",
    "FromSampler",
    "Mixture",
    "Normal",
    "Prior",
    "Product",
    "Sphere",
    "Torus",
    "Uniform",
    "make_prior",
]
