"""Random numbers as a pure function of where they are used.

No stream depends on what was drawn before it: the batches of epoch 7 and the prior sample of step 300 are the same
whether the run got there in one go or was resumed, and the caller's global generator is left alone.
"""

import contextlib
import enum
from collections.abc import Iterator

import numpy as np
import torch


class Stream(enum.IntEnum):
    """What the numbers are for. Two streams of one seed are independent; the values are part of a run's identity."""

    NETWORKS = 0
    ORDER = 1
    PRIOR = 2
    SPLIT = 3
    EVALUATION = 4
    SAMPLES = 5
    LATENT_LOSS = 6
    POSTERIOR = 7


def generator(seed: int, stream: Stream, *position: int) -> torch.Generator:
    """A CPU generator that depends on (seed, stream, position) alone, e.g. `generator(seed, Stream.ORDER, epoch)`."""
    state = np.random.SeedSequence([seed, int(stream), *position]).generate_state(1, np.uint32)
    return torch.Generator().manual_seed(int(state[0]))


@contextlib.contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Inside the block, new layers have weights that depend on `seed` alone; the caller's generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator(seed, Stream.NETWORKS).initial_seed())
        yield
