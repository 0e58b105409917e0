"""One self-contained page about a run."""

import base64
from dataclasses import asdict
from html import escape
from typing import Any

from sinkdiv.generative.config import TrainingConfig
from sinkdiv.generative.metrics import score_table

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  :root {{ --ink: #1f2937; --quiet: #64748b; --line: #e5e7eb; --accent: #c2410c; }}
  body {{ margin: 0; background: #f8fafc; color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }}
  main {{ max-width: 1040px; margin: 0 auto; padding: 40px 24px 64px; }}
  h1 {{ margin: 0 0 4px; font-size: 28px; }}
  h2 {{ margin: 0 0 4px; font-size: 17px; }}
  p {{ margin: 0 0 12px; color: var(--quiet); }}
  section {{ margin-top: 20px; padding: 20px 24px; background: #fff; border: 1px solid var(--line);
             border-radius: 10px; }}
  .note {{ color: var(--accent); font-weight: 600; }}
  .numbers {{ display: flex; flex-wrap: wrap; gap: 12px 40px; margin-top: 20px; }}
  .numbers div {{ color: var(--quiet); font-size: 13px; }}
  .numbers b {{ display: block; color: var(--ink); font-size: 24px; font-variant-numeric: tabular-nums; }}
  .pair {{ display: grid; grid-template-columns: 1fr 1fr; gap: 20px; }}
  img {{ display: block; width: 100%; }}
  .pixels {{ image-rendering: pixelated; border: 1px solid var(--line); border-radius: 6px; }}
  table {{ width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }}
  th, td {{ padding: 6px 8px; border-bottom: 1px solid var(--line); text-align: right; }}
  th:first-child, td:first-child {{ text-align: left; }}
  th {{ color: var(--quiet); font-weight: 500; }}
  td:nth-child(2) {{ font-weight: 600; }}
  .settings td {{ text-align: left; font-weight: 400; word-break: break-all; }}
  .settings td:first-child {{ width: 180px; color: var(--quiet); }}
  @media (max-width: 760px) {{ .pair {{ grid-template-columns: 1fr; }} }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{summary}</p>
{note}
<div class="numbers">{numbers}</div>
<div class="pair">
<section><h2>Samples</h2><p>Decoded draws from the prior.</p>
<img class="pixels" alt="samples" src="{samples}"></section>
<section><h2>Reconstructions</h2><p>Held-out images, each row above its reconstruction.</p>
<img class="pixels" alt="reconstructions" src="{reconstructions}"></section>
</div>
<section><h2>Training</h2><img alt="loss curves" src="{curves}"></section>
<section><h2>Latent space</h2><p>Held-out codes beside the prior, on the same principal plane. Where the two clouds
differ, samples are drawn from codes the decoder has not seen.</p><img alt="latent map" src="{latent_map}"></section>
<section><h2>Scores</h2><p>{compared}</p><table>{scores}</table></section>
<section><h2>Settings</h2><table class="settings">{settings}</table></section>
</main>
</body>
</html>
"""


def render(
    config: TrainingConfig,
    metrics: dict[str, Any],
    *,
    samples: bytes,
    reconstructions: bytes,
    curves: bytes,
    latent_map: bytes,
) -> str:
    """The page as HTML; the first two pictures are PNG, the other two SVG, all inlined."""
    model = metrics["scores"]["model"]
    numbers = [
        ("held-out reconstruction, nats per image", f"{model['reconstruction_nats_per_image']:.1f}"),
        ("energy MMD ×1000, samples to held-out", f"{model['sample_mmd_energy_x1000']:.1f}"),
        ("epochs", str(metrics["epochs"])),
        ("seconds of training", f"{metrics['seconds']['training']:.0f}"),
    ]
    note = f"interrupted after {metrics['steps']} steps, {metrics['epochs']} of {config.max_epochs} epochs"
    settings = asdict(config) | metrics["versions"]
    return _PAGE.format(
        title=escape(f"Sinkhorn autoencoder on {config.data}"),
        summary=escape(
            f"{config.prior} prior in {config.latent_dim} dimensions, β = {config.beta:g}, ε = {config.eps:g}"
        ),
        note=f'<p class="note">{escape(note)}</p>' if metrics["interrupted"] else "",
        numbers="".join(f"<div><b>{escape(value)}</b>{escape(name)}</div>" for name, value in numbers),
        samples=_inline(samples, "image/png"),
        reconstructions=_inline(reconstructions, "image/png"),
        curves=_inline(curves, "image/svg+xml"),
        latent_map=_inline(latent_map, "image/svg+xml"),
        compared=escape(
            f"{metrics['images_compared']} samples against as many held-out images. Untrained: the same networks "
            "before training. Training data: training images in place of samples and held-out images, prior "
            "draws in place of codes; what is left there is sampling noise. The Sinkhorn divergence has blur "
            f"{model['sample_sinkhorn_divergence']['blur']:.2g}; ± is its certified interval."
        ),
        scores=_table([("", "model", "untrained", "training data"), *score_table(metrics)], header=True),
        settings=_table([(name, str(value)) for name, value in settings.items()], header=False),
    )


def _table(rows: list[tuple[str, ...]], *, header: bool) -> str:
    lines = []
    for number, row in enumerate(rows):
        tag = "th" if header and number == 0 else "td"
        lines.append("<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>")
    return "\n".join(lines)


def _inline(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
