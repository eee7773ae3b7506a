"""Duplicates: documents that are nearly those before them are left out and counted, others stay; the memory is fixed."""

import random

import numpy as np

from robustbert.data.corpus import IndexedCorpus, read_manifest
from robustbert.data.preparation import duplicates
from robustbert.data.preparation.duplicates import SeenDocuments, duplicate_keys
from robustbert.data.preparation.hold_out import digest_of
from tests.data.conftest import make_text
from tests.data.test_preprocess import run


def near_share(overlap: float, num_pairs: int = 200) -> float:
    """The share of pairs of documents of 1,000 tokens that are found, where their shingles overlap by a Jaccard of `overlap`."""
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(num_pairs):
        first = rng.integers(0, 50_000, 1000)
        kept = round(1000 * 2 * overlap / (1 + overlap))  # one run of tokens in common
        second = np.concatenate([first[:kept], rng.integers(0, 50_000, 1000 - kept)])
        keys = [duplicate_keys("near", tokens, digest_of(str(tokens.tolist()))) for tokens in (first, second)]
        assert len(keys[0]) == 15 and keys[0][0] != keys[1][0]
        found += len(np.intersect1d(keys[0][1:], keys[1][1:])) > 0
    return found / num_pairs


def test_near_duplicates_are_found_as_often_as_the_bands_say():
    for overlap in (0.5, 0.8, 0.95):
        expected = 1 - (1 - overlap**8) ** 14
        assert abs(near_share(overlap) - expected) < 4 * np.sqrt(0.25 / 200), overlap


def test_keys_seen_are_remembered_and_read_again(tmp_path):
    keys = [np.arange(1, 16, dtype=np.uint64) + np.uint64(100 * i) for i in range(50)]
    seen = SeenDocuments(tmp_path / "seen")
    assert [seen.check(key) for key in keys] == [None] * 50
    seen.flush()
    again = SeenDocuments(tmp_path / "seen", seen.num_keys)
    assert all(again.check(key) == "exact" for key in keys)
    shifted = np.concatenate([[np.uint64(9999)], keys[3][1:]])
    assert again.check(shifted) == "near" and again.check(np.array([7777], np.uint64)) is None


def test_the_oldest_keys_are_forgotten_and_memory_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "_TABLE_SLOTS", 1 << 8)
    seen = SeenDocuments(tmp_path / "seen")
    keys = [np.array([i], np.uint64) for i in range(1, 1001)]
    for key in keys:
        assert seen.check(key) is None
    assert seen.check(keys[-1]) == "exact" and seen.check(keys[-100]) == "exact"
    assert seen.check(keys[0]) is None


def test_the_command_leaves_out_what_came_before_and_counts_it(tokenizer_dir, tmp_path):
    documents = make_text(30, seed=2, sentences_per_document=40).rstrip("\n").split("\n\n\n")
    rng = random.Random(0)
    nearly = [document.replace(" the ", " thee ", 1) for document in rng.sample(documents, 5)]
    (tmp_path / "text.txt").write_text("\n\n\n".join([*documents, *documents[:4], *nearly]) + "\n")
    arguments = ["--input", "text.txt", "--tokenizer", tokenizer_dir]
    for kind, left_out in (("exact", {"duplicates, exact": 4}), ("near", {"duplicates, exact": 4, "duplicates, near": 5})):
        result = run(*arguments, "--output", kind, "--deduplicate", kind, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        counts = read_manifest(tmp_path / kind).not_taken
        assert {name: count for name, count in counts.items() if name != "duplicates, characters"} == left_out
        assert IndexedCorpus(tmp_path / kind).num_documents == 39 - sum(left_out.values())


def test_stories_keeps_the_share_of_documents_most_like_the_questions(tokenizer_dir, tmp_path):
    (tmp_path / "questions.txt").write_text("The trophy does not fit into the suitcase because it is too large.\n")
    like = [f"Number {i}: the trophy does not fit into the suitcase because it is too large." for i in range(3)]
    other = make_text(27, seed=5).rstrip("\n").split("\n\n\n")
    (tmp_path / "crawl.txt").write_text("\n\n\n".join([*other[:10], like[0], *other[10:], *like[1:]]) + "\n")
    arguments = ["--input", "crawl.txt", "--reader", "stories", "--queries", "questions.txt", "--tokenizer", tokenizer_dir]
    result = run(*arguments, "--share", "0.1", "--output", "stories", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    corpus = IndexedCorpus(tmp_path / "stories")
    assert corpus.num_documents == 3 and corpus.manifest.not_taken == {"left out: below the similarity": 27}
    refused = run(*arguments, "--output", "none", cwd=tmp_path)
    assert refused.returncode == 2 and "--share" in refused.stderr and len(refused.stderr.splitlines()) == 1
