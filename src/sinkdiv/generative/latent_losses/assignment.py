"""The optimal assignment of codes to draws: HAE (P19)."""

import torch
from torch import Tensor

from sinkdiv.costs import squared_distances
from sinkdiv.generative.latent_losses.base import require_equal_counts


class HungarianLoss:
    """HAE: the mean |z−z'|² under the optimal assignment; its gradient is exact by the envelope theorem."""

    def __call__(self, codes: Tensor, draws: Tensor, generator: torch.Generator) -> Tensor:
        require_equal_counts(codes, draws)
        # Imported here: SciPy takes a third of a second, and no other loss needs it.
        from scipy.optimize import linear_sum_assignment

        costs = squared_distances(codes.detach()[None], draws.detach()[None])[0]
        _, partners = linear_sum_assignment(costs.cpu().numpy())
        return (codes - draws[torch.from_numpy(partners).to(draws.device)]).square().sum(-1).mean()
