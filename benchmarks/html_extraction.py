#!/usr/bin/env python3
"""How much of an article trafilatura finds in a page, and in what time: its fast mode, its exact one, and fast first.

The pages are those of public collections, cloned beforehand: article-extraction-benchmark (ground-truth.json, html/),
Readability (test/test-pages) and trafilatura's own (tests/evaldata.json, tests/eval, tests/cache). The first two have the
article's text: precision and recall are of runs of four words. The last has segments of text that belong to the article,
and some that do not.
"""

import argparse
import gzip
import json
import logging
import re
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import trafilatura  # noqa: E402
from lxml import html  # noqa: E402

from benchmarks.records import write_record  # noqa: E402

_WORDS, _RUN = re.compile(r"\w+"), 4
_LITTLE, _PARAGRAPH_CHARS = 0.3, 80  # fast first: exact where fast finds less than this share of the text in long <p>
_EXAMPLE = """example:
  benchmarks/html_extraction.py --articles article-extraction-benchmark --readability readability --segments trafilatura
"""


class Page(NamedTuple):
    """A page, and either its article's text or segments inside and outside of the article."""

    content: str | bytes
    article: str = ""
    inside: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()


class Found(NamedTuple):
    """What one mode finds in a page: correct, found and wanted in runs of words or segments; seconds of processor time."""

    correct: int
    found: int
    wanted: int
    seconds: float


def main() -> int:
    """Measure each collection and print a table; with --record write it down."""
    options = _parser().parse_args()
    logging.disable(logging.CRITICAL)
    lines = []
    for name in ("articles", "readability", "segments"):
        if folder := getattr(options, name):
            pages = list(globals()[f"_{name}"](folder))
            lines += _table(f"{folder.name}, {len(pages)} pages", pages)
    print("\n".join(lines))
    if options.record:
        command = "benchmarks/html_extraction.py " + " ".join(sys.argv[1:])
        write_record(
            options.record, "Extraction of articles", command, ", of which one is used", ("trafilatura", "lxml", "justext"), lines
        )
    return 0


def fast(content: str | bytes) -> str:
    """The mode without a second opinion."""
    return trafilatura.extract(content, include_comments=False, include_tables=False, fast=True) or ""


def exact(content: str | bytes) -> str:
    """The mode that compares with readability's and justext's algorithms."""
    return trafilatura.extract(content, include_comments=False, include_tables=False) or ""


def fast_first(content: str | bytes) -> str:
    """Fast, and exact where that finds little of the text in the page's paragraphs."""
    text = fast(content)
    tree = trafilatura.load_html(content)
    paragraphs = ("".join(p.itertext()).strip() for p in tree.iter("p")) if tree is not None else ()
    if len(text) >= _LITTLE * sum(len(paragraph) for paragraph in paragraphs if len(paragraph) >= _PARAGRAPH_CHARS):
        return text
    return max(exact(content), text, key=len)


MODES = {"fast": fast, "exact": exact, "fast first": fast_first}


def _table(title: str, pages: list[Page]) -> list[str]:
    exact(pages[0].content)
    seen = {name: [] for name in MODES}
    for page in pages:
        for name, mode in MODES.items():
            started = time.process_time()
            text = mode(page.content)
            seen[name].append(_compared(page, text, time.process_time() - started))
    lines = [title, f"  {'mode':12}{'precision':>10}{'recall':>8}{'F1':>8}{'pages with < half':>19}{'ms a page':>11}"]
    for name, found in seen.items():
        if pages[0].inside:
            precision, recall = (
                sum(f.correct for f in found) / sum(getattr(f, key) for f in found) for key in ("found", "wanted")
            )
        else:
            precision, recall = (
                statistics.mean(f.correct / max(1, getattr(f, key)) for f in found) for key in ("found", "wanted")
            )
        lost = sum(f.correct < f.wanted / 2 for f in found)
        score = 2 * precision * recall / (precision + recall)
        milliseconds = 1000 * statistics.mean(f.seconds for f in found)
        lines.append(f"  {name:12}{precision:>10.3f}{recall:>8.3f}{score:>8.3f}{lost:>19}{milliseconds:>11.1f}")
    return [*lines, ""]


def _compared(page: Page, text: str, seconds: float) -> Found:
    if page.inside:
        correct = sum(segment in text for segment in page.inside)
        return Found(correct, correct + sum(segment in text for segment in page.outside), len(page.inside), seconds)
    found, wanted = _runs(text), _runs(page.article)
    return Found((found & wanted).total(), found.total(), wanted.total(), seconds)


def _runs(text: str) -> Counter:
    words = _WORDS.findall(text)
    return Counter(tuple(words[i : i + _RUN]) for i in range(max(1, len(words) - _RUN + 1)))


def _articles(folder: Path):
    for name, facts in json.loads((folder / "ground-truth.json").read_text()).items():
        content = gzip.decompress((folder / "html" / f"{name}.html.gz").read_bytes())
        yield Page(content.decode("utf-8", "replace"), facts["articleBody"])


def _readability(folder: Path):
    for path in sorted(folder.glob("test/test-pages/*/source.html")):
        article = html.fromstring((path.parent / "expected.html").read_text()).text_content()
        yield Page(path.read_text(errors="replace"), article)


def _segments(folder: Path):
    for facts in json.loads((folder / "tests/evaldata.json").read_text()).values():
        paths = [folder / "tests" / kind / facts["file"] for kind in ("eval", "cache")]
        content = next((path.read_bytes() for path in paths if path.is_file()), None)
        if content is not None and facts["with"]:
            yield Page(content, inside=tuple(facts["with"]), outside=tuple(facts["without"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", type=Path, help="a clone of article-extraction-benchmark")
    parser.add_argument("--readability", type=Path, help="a clone of Mozilla's Readability")
    parser.add_argument("--segments", type=Path, help="a clone of trafilatura")
    parser.add_argument("--record", type=Path, help="write the table to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
