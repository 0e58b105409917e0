"""The results of a benchmark: a file of JSON that is written section by section, and the report that is made of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.frame.clock import say
from benchmarks.frame.machine import machine

Results = dict[str, Any]
#: The title of a section, and what measures it.
Section = tuple[str, Callable[[Any], Results]]


@dataclass(frozen=True)
class Benchmark:
    """A command that measures some sections and replaces these, and only these, in its results.

    Attributes:
        name: of its files, such as speed.json and speed.md.
        sections: by name, in the order of the report.
        report: the Markdown of all results; it may write plots into the folder.
    """

    name: str
    sections: dict[str, Section]
    report: Callable[[Results, Path], str]

    def parser(self, description: str | None) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the results")
        add_sections(parser, self.sections)
        add_quick(parser)
        return parser

    def run(self, names: list[str], context: Any, size: str) -> None:
        """Measure the sections, and write all results after each."""
        file: Path = context.out / f"{self.name}.json"
        results = load(file)
        for name in names:
            title, measure = self.sections[name]
            say(title)
            head = {"title": title, "size": size, "machine": machine()}
            results["sections"][name] = head | measure(context)
            save(results, file, self.sections)
            file.with_suffix(".md").write_text(self.report(results, file.parent))


def add_sections(parser: argparse.ArgumentParser, sections: Iterable[str]) -> None:
    """The option --only: some of the sections, separated by commas."""

    def chosen(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in sections:
                raise argparse.ArgumentTypeError(f"there is no section {name!r}; there are {', '.join(sections)}")
        return names

    parser.add_argument("--only", type=chosen, default=list(sections), help="sections, separated by commas")


def add_quick(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="sizes that show that all works, and measure nothing")


def load(file: Path) -> Results:
    return json.loads(file.read_text()) if file.exists() else {"sections": {}}


def save(results: Results, file: Path, order: Iterable[str] | None = None) -> None:
    """In one step, so that a crash leaves a whole file; ``order`` is that of the sections."""
    file.parent.mkdir(parents=True, exist_ok=True)
    sections = results["sections"]
    results["sections"] = {name: sections[name] for name in order or sections if name in sections}
    draft = file.with_suffix(".json.tmp")
    draft.write_text(json.dumps(results, indent=1) + "\n")
    draft.replace(file)
