"""tools/inspect: facts, lengths, samples with their masks, and damage found; nothing is written."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robustbert.config import MaskingConfig
from robustbert.data.blocks.packing import open_packing
from robustbert.data.corpus import IndexedCorpus
from robustbert.data.preparation.indexing import prepare_corpus
from robustbert.data.text.readers import find_source
from robustbert.inspection.histogram import LengthHistogram
from robustbert.inspection.samples import decoded_samples
from tests.data.conftest import make_text, tokenizer, tokenizer_dir  # noqa: F401

TOOL = Path(__file__).resolve().parents[2] / "tools" / "inspect"
FORMATS = ("full-sentences", "doc-sentences", "segment-pair", "sentence-pair")


def inspect(*arguments):
    return subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True, timeout=120)


@pytest.fixture
def prefix(tokenizer, tmp_path):  # noqa: F811
    (tmp_path / "text.txt").write_text(make_text(80))
    source = find_source(str(tmp_path / "text.txt"))
    prepare_corpus([source], tokenizer, tmp_path / "books.tokenizer", tmp_path / "books")
    return tmp_path / "books"


def files_of(folder: Path) -> dict:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_facts_and_lengths_are_the_corpus(prefix):
    corpus, before = IndexedCorpus(prefix), files_of(prefix.parent)
    shown = inspect(prefix)
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"documents +80\n", shown.stdout) and f"{corpus.num_tokens:,} (uint16)" in shown.stdout
    plots = shown.stdout.partition("tokens of a sentence")[2].partition("tokens of a document")
    for plot, count in zip((plots[0], plots[2]), (corpus.num_sentences, corpus.num_documents)):
        assert sum(int(n.replace(",", "")) for n in re.findall(r"^ {2,}[\d, -]*?([\d,]+) [█▏▎▍▌▋▊▉]", plot, re.M)) == count
    facts = json.loads(inspect(prefix, "--json").stdout)
    assert (facts["documents"], facts["tokens"], facts["blocks"]) == (80, corpus.num_tokens, [])
    assert files_of(prefix.parent) == before


@pytest.mark.parametrize("packing_format", FORMATS)
def test_samples_show_every_prediction_and_write_nothing(prefix, packing_format):
    before = files_of(prefix.parent)
    shown = inspect(prefix, "--samples", 3, "--format", packing_format, "--sequence-length", 48)
    assert shown.returncode == 0, shown.stderr
    counts = re.findall(r"(\d+) tokens, (\d+) predicted \((\d+) masked, (\d+) replaced, (\d+) kept\)", shown.stdout)
    assert len(counts) == 3
    for tokens, predicted, *kinds in (map(int, line) for line in counts):
        assert tokens <= 48 and predicted == sum(kinds) and abs(predicted - 0.15 * (tokens - 2)) <= 1.5
    assert shown.stdout.count("→<mask>]") == sum(int(line[2]) for line in counts)
    assert ("in the second segment" in shown.stdout) == packing_format.endswith("pair")
    assert files_of(prefix.parent) == before


def test_a_sample_is_the_text_where_its_masks_are_undone(prefix):
    corpus = IndexedCorpus(prefix)
    ((_, parts),) = decoded_samples(corpus, 1, "full-sentences", 64, MaskingConfig(), seed=3)
    text = re.sub(r"\[(.*?)(?:→.*?)?\]", r"\1", "".join(text for _, text in parts))
    tokens = np.concatenate([corpus.sentence(i) for i in range(len(corpus))])
    from robustbert.data.tokenizer import load_tokenizer

    inside = text.replace("<s>", "").replace("</s>", "\n").strip().split("\n")
    assert all(part in load_tokenizer(corpus.tokenizer_dir).decode(tokens) for part in inside) and len(inside[0]) > 50


def test_verify_passes_on_what_was_prepared_and_finds_a_changed_byte(prefix):
    corpus = IndexedCorpus(prefix)
    from robustbert.data.tokenizer import load_tokenizer

    for packing_format in FORMATS:
        open_packing(corpus, packing_format, 64, load_tokenizer(corpus.tokenizer_dir))
    passed = inspect(prefix, "--verify")
    assert passed.returncode == 0 and passed.stdout.count("are those of this corpus") == 4, passed.stderr
    for ending in ("bin", "idx", "counts.npy", "full-sentences-64.npy", "segment-pair-64.npy"):
        path = Path(f"{prefix}.{ending}")
        content = path.read_bytes()
        place = len(content) - 9 if ending.endswith("npy") else len(content) // 2
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        found = inspect(prefix, "--verify")
        assert found.returncode == 1, (ending, found.stdout)
        assert found.stderr.startswith("tools/inspect: damaged: ") and path.name in found.stderr
        assert len(found.stderr.splitlines()) == 1
        path.write_bytes(content)


def test_what_cannot_be_read_is_one_line(prefix, tmp_path):
    Path(f"{prefix}.bin").write_bytes(Path(f"{prefix}.bin").read_bytes()[:-10])
    for target, message in ((prefix, "books.bin: cut off"), (tmp_path / "none", "no such corpus"), (f"{prefix}-*", "matches no")):
        result = inspect(target)
        assert result.returncode == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1


def test_parts_are_listed_with_their_sums(prefix, tokenizer, tmp_path):  # noqa: F811
    for number in range(2):
        (tmp_path / f"{number}.txt").write_text(make_text(10 + number))
        source = find_source(str(tmp_path / f"{number}.txt"))
        target = tmp_path / f"news-0000{number}-of-00003"
        prepare_corpus([source], tokenizer, tmp_path / "books.tokenizer", target)
    missing = inspect(tmp_path / "news-*")
    assert missing.returncode == 2 and "1 of the 3 parts" in missing.stderr and "--shard 2/3" in missing.stderr
    listed = inspect(*(tmp_path / f"news-0000{number}-of-00003" for number in range(2)))
    assert re.search(r"2 corpora +21 ", listed.stdout)


def test_percentiles_are_exact_and_bins_hold_everything():
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 3000, 10_001)
    histogram = LengthHistogram(np.array_split(lengths, 7))
    assert histogram.mean == pytest.approx(lengths.mean()) and histogram.longest == lengths.max()
    assert histogram.percentile(0.5) == np.sort(lengths)[5000]
    assert sum(count for _, _, count in histogram.bins()) == 10_001
    long = LengthHistogram([np.array([70_000, 1_000_000, 2_000_000])])
    assert long.percentile(0.5) == pytest.approx(1_000_000, rel=0.011) and long.bins()[0][:2] == (65_536, 131_071)


def test_help_has_an_example():
    assert "examples:" in inspect("--help").stdout
