"""Scores of generated images; each says its formula and its source.

A new score is a function of tensors that returns a plain number, a `Score` made of it, and a line in `SCORES`.

- `subject`        what a score is computed from
- `reconstruction` errors of an autoencoder's reconstructions
- `kernel`         squared maximum mean discrepancies: of pixels, of features ("KID"), of codes
- `transport`      exact Wasserstein distance, Sinkhorn divergence with its certified interval
- `frechet`        Fréchet distance between Gaussians fitted to features ("FID")
- `confidence`     how sure and how varied a classifier's answers are ("inception score")
- `support`        precision, recall, density, coverage
- `memorisation`   whether samples are copies of training images
- `evaluation`     all scores of a model; `table`: how they are shown
"""

from sinkdiv.generative.scores import confidence, frechet, kernel, memorisation, reconstruction, support, transport
from sinkdiv.generative.scores.subject import Score

#: Every score a model may have: its name in `metrics.json`, in the order of the table.
SCORES: dict[str, Score] = {
    "reconstruction_nats_per_image": reconstruction.NATS,
    "reconstruction_mse_per_pixel": reconstruction.SQUARED_ERROR,
    "sample_mmd_energy_x1000": kernel.ENERGY,
    "sample_sinkhorn_divergence": transport.PIXEL_DIVERGENCE,
    "sample_w2": transport.WASSERSTEIN,
    "feature_sinkhorn_divergence": transport.FEATURE_DIVERGENCE,
    "fid": frechet.FID,
    "kid_x1000": kernel.KID,
    "classifier_score": confidence.CLASSIFIER_SCORE,
    "precision": support.PRECISION,
    "recall": support.RECALL,
    "density": support.DENSITY,
    "coverage": support.COVERAGE,
    "nearest_training_ratio": memorisation.NEAREST_TRAINING_RATIO,
    "copied_share": memorisation.COPIED_SHARE,
    "latent_mmd_energy_x1000": kernel.LATENT_ENERGY,
    "latent_mmd_imq_x1000": kernel.LATENT_MULTIQUADRIC,
}
