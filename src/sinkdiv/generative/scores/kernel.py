"""The kernel distance between features of two sets of images."""

from torch import Tensor

# Products of two sets of this many rows at a time.
ROWS = 2000


def kernel_distance(features: Tensor, reference: Tensor) -> float:
    """Squared maximum mean discrepancy in the kernel (x·y/d + 1)³, without bias: it may be negative.

    Bińkowski et al. 2018, who called it KID in features of Inception-v3; in other features it needs another name. Lower
    is better; no units. The U-statistic over all pairs, where the paper averages over random subsets of
    1,000 to save time: nothing is drawn, and the estimate is the least noisy one. Computed in float64.

    Args:
        features: (n, d) of the images to judge, n ≥ 2.
        reference: (m, d) of real images, m ≥ 2.
    """
    x, y = features.double(), reference.double()
    between = _kernel_sum(x, y) / (len(x) * len(y))
    return _mean_of_pairs(x) + _mean_of_pairs(y) - 2 * between


def _kernel_sum(x: Tensor, y: Tensor) -> float:
    dimension = x.shape[1]
    bases = (a @ b.T / dimension + 1 for a in x.split(ROWS) for b in y.split(ROWS))
    return sum(float((base * base * base).sum()) for base in bases)


def _mean_of_pairs(x: Tensor) -> float:
    diagonal = float((x.square().sum(1) / x.shape[1] + 1).pow(3).sum())
    return (_kernel_sum(x, x) - diagonal) / (len(x) * (len(x) - 1))
