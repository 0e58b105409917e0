"""The inception score with any classifier."""

import math
import statistics

from torch import Tensor

from sinkdiv.generative.scores.subject import HIGHER, Score, Subject

SPLITS = 10


def classifier_score(logits: Tensor, splits: int = SPLITS) -> tuple[float, float]:
    """exp(mean over images of KL(p(class | image) | p(class))): mean and standard deviation over `splits` equal parts.

    Salimans et al. 2016, who called it inception score with Inception-v3; with another classifier it needs another
    name. Higher is better, from 1 to the number of classes: every image has a clear class, and all classes are equally
    frequent. It knows nothing of the real images. p(class) is the mean over a part; a part of few images scores too
    low, so only scores from equally many images compare (10,000 and more are usual). The order of the images must not
    carry meaning. Computed in float64.

    Args:
        logits: (n, classes), n ≥ 2 · splits.
    """
    parts = [_score(part) for part in logits.double().tensor_split(splits)]
    return statistics.mean(parts), statistics.pstdev(parts)


def _score(logits: Tensor) -> float:
    # Logarithms throughout: a class of which nothing is ever seen contributes 0, not 0 · ∞.
    log_given = logits.log_softmax(1)
    log_mean = log_given.logsumexp(0) - math.log(len(logits))
    return float((log_given.exp() * (log_given - log_mean)).sum(1).mean().exp())


CLASSIFIER_SCORE = Score(
    "samples, classifier score ({features})",
    2,
    lambda subject: classifier_score(subject.activations.logits)[0],
    HIGHER,
    Subject.missing_features,
)
