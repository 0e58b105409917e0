"""One self-contained page about a run."""

import base64
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from sinkdiv.generative.config import RunConfig
from sinkdiv.generative.scores.table import explanation, headline, score_table

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
  .pair {{ display: grid; grid-template-columns: 1fr 1fr; column-gap: 20px; }}
  .wide {{ grid-column: 1 / -1; }}
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
{sections}
</div>
<section><h2>Scores</h2><p>{compared}</p><table>{scores}</table></section>
<section><h2>Settings</h2><table class="settings">{settings}</table></section>
</main>
</body>
</html>
"""


@dataclass(frozen=True)
class Section:
    """One picture of the page: a title, a sentence, an image as a data URL, and whether two stand side by side."""

    title: str
    caption: str
    image: str
    half: bool = False


def png(content: bytes) -> str:
    """A PNG as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


def svg(content: bytes) -> str:
    """An SVG as a data URL."""
    return f"data:image/svg+xml;base64,{base64.b64encode(content).decode('ascii')}"


def render(config: RunConfig, metrics: dict[str, Any], sections: list[Section]) -> str:
    """The page as HTML, with every picture inlined."""
    reached = f"after {metrics['steps']} steps, {metrics['epochs']} of {config.max_epochs} epochs"
    # Runs of earlier versions do not say that they have not failed.
    note = f"interrupted {reached}" if metrics["interrupted"] else ""
    if failure := metrics.get("failed"):
        note = f"training failed: {failure}; shown is the state {reached}"
    settings = asdict(config) | metrics["versions"]
    title, summary = config.described
    numbers = [*headline(metrics), ("epochs", str(metrics["epochs"]))]
    numbers.append(("seconds of training", f"{metrics['seconds']['training']:.0f}"))
    return _PAGE.format(
        title=escape(title),
        summary=escape(summary),
        note=f'<p class="note">{escape(note)}</p>' if note else "",
        numbers="".join(f"<div><b>{escape(value)}</b>{escape(name)}</div>" for name, value in numbers),
        sections="\n".join(map(_section, sections)),
        compared=escape(explanation(metrics)),
        scores=_table([("", "model", "untrained", "training data"), *score_table(metrics)], header=True),
        settings=_table([(name, str(value)) for name, value in settings.items()], header=False),
    )


def _section(section: Section) -> str:
    pixels = ' class="pixels"' if section.image.startswith("data:image/png") else ""
    wide = "" if section.half else ' class="wide"'
    caption = f"<p>{escape(section.caption)}</p>" if section.caption else ""
    return (
        f"<section{wide}><h2>{escape(section.title)}</h2>{caption}"
        f'<img{pixels} alt="{escape(section.title.lower())}" src="{section.image}"></section>'
    )


def _table(rows: list[tuple[str, ...]], *, header: bool) -> str:
    lines = []
    for number, row in enumerate(rows):
        tag = "th" if header and number == 0 else "td"
        lines.append("<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>")
    return "\n".join(lines)
