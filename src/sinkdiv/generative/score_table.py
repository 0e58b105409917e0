"""How scores are shown to a person: titles, columns, and the sentences around the table."""

from typing import Any

# Every score a model may have: its title, and the digits shown.
ROWS = {
    "reconstruction_nats_per_image": ("reconstruction, nats per image", 1),
    "reconstruction_mse_per_pixel": ("reconstruction, MSE per pixel", 4),
    "sample_mmd_energy_x1000": ("samples, energy MMD ×1000", 1),
    "sample_sinkhorn_divergence": ("samples, Sinkhorn divergence", 3),
    "fid": ("samples, FID ({features})", 2),
    "kid_x1000": ("samples, KID ×1000 ({features})", 2),
    "classifier_score": ("samples, classifier score ({features})", 2),
    "precision": ("samples, precision ({features})", 3),
    "recall": ("samples, recall ({features})", 3),
    "density": ("samples, density ({features})", 3),
    "coverage": ("samples, coverage ({features})", 3),
    "latent_mmd_energy_x1000": ("codes, energy MMD ×1000", 2),
    "latent_mmd_imq_x1000": ("codes, IMQ MMD ×1000", 2),
}
HEADLINE = ("reconstruction_nats_per_image", "fid", "sample_mmd_energy_x1000")
COLUMNS = ("model", "untrained", "training_data")


def headline(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """The few numbers (what, value) that a report begins with."""
    model = metrics["scores"]["model"]
    return [(_title(metrics, key), _shown(model[key], ROWS[key][1])) for key in HEADLINE if key in model]


def score_table(metrics: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Rows (what, model, untrained, training data) as text, for a terminal or a page."""
    scores = [metrics["scores"][column] for column in COLUMNS]
    rows = []
    for key, (_, digits) in ROWS.items():
        if key in scores[0]:
            model, untrained, data = (_shown(score[key], digits) for score in scores)
            rows.append((_title(metrics, key), model, untrained, data))
    return rows


def explanation(metrics: dict[str, Any]) -> str:
    """What the columns and the intervals of `score_table` mean."""
    blur = metrics["scores"]["model"]["sample_sinkhorn_divergence"]["blur"]
    features = metrics.get("features")
    compared = f"{metrics['images_compared']} samples against as many held-out images"
    if features:
        compared += f"; in the features of the {_spoken(features)}, {features['images']} against as many"
    return (
        f"{compared}. Untrained: the same networks before "
        "training. Training data: training images in place of samples and held-out images, prior draws in place of "
        "codes; what is left there is sampling noise. The Sinkhorn divergence has blur "
        f"{blur:.2g}; ± is its certified interval."
    )


def _title(metrics: dict[str, Any], key: str) -> str:
    # Runs scored by earlier versions have no features.
    features = metrics.get("features")
    return ROWS[key][0].format(features=_spoken(features) if features else "")


def _spoken(features: dict[str, Any]) -> str:
    return str(features["name"]).replace("_", " ")


def _shown(value: Any, digits: int) -> str:
    if isinstance(value, dict):
        half_width = max(value["upper"] - value["value"], value["value"] - value["lower"])
        return f"{value['value']:.{digits}f} ± {half_width:.0e}"
    return f"{value:.{digits}f}"
