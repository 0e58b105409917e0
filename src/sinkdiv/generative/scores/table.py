"""How scores are shown to a person: titles, columns, and the sentences around the table."""

from typing import Any

from sinkdiv.generative.scores import SCORES

COLUMNS = ("model", "untrained", "training_data")
ABSENT = "–"
HEADLINE = ("reconstruction_nats_per_image", "fid", "sample_mmd_energy_x1000")


def headline(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """The few numbers (what, value) that a report begins with."""
    model = metrics["scores"]["model"]
    return [(_title(metrics, key), _shown(model[key], SCORES[key].digits)) for key in HEADLINE if key in model]


def score_table(metrics: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Rows (what and its better direction, model, untrained, training data) as text, for a terminal or a page."""
    scores = [metrics["scores"][column] for column in COLUMNS]
    rows = []
    for key, row in SCORES.items():
        if key in scores[0]:
            model, untrained, data = (_shown(score[key], row.digits) for score in scores)
            rows.append((f"{_title(metrics, key)} {row.better}", model, untrained, data))
    return rows


def explanation(metrics: dict[str, Any]) -> str:
    """What rows, columns and intervals of `score_table` mean, and why rows are missing."""
    features = metrics.get("features")
    many = f", {features['images']} in FID and the other scores in features" if features else ""
    sentences = [
        f"{metrics['images_compared']} samples against as many held-out images{many}.",
        "Arrows point to what is better, or to what new real images have.",
        "Untrained: the same networks before training.",
        "Training data: training images in place of samples and held-out images (their copies: the other ones), prior "
        "draws in place of codes; what is left there is sampling noise.",
        f"The Sinkhorn divergences have blur {' and '.join(_blurs(metrics))}; ± is their certified interval.",
    ]
    return " ".join(sentences + [f"There is {sentence}." for sentence in metrics.get("missing", ())])


def _blurs(metrics: dict[str, Any]) -> list[str]:
    return [f"{score['blur']:.2g}" for score in metrics["scores"]["model"].values() if isinstance(score, dict)]


def _title(metrics: dict[str, Any], key: str) -> str:
    # Runs scored by earlier versions have no features.
    features = metrics.get("features")
    name = str(features["name"]).replace("_", " ") if features else ""
    return SCORES[key].title.format(features=name, space=name or "pixels")


def _shown(value: Any, digits: int) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, dict):
        half_width = max(value["upper"] - value["value"], value["value"] - value["lower"])
        return f"{value['value']:.{digits}f} ± {half_width:.0e}"
    return f"{value:.{digits}f}"
