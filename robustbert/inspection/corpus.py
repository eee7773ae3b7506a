"""What an indexed corpus holds, as facts and lengths, and whether it is what was prepared."""

from collections.abc import Callable, Iterator

import numpy as np

from robustbert.data.blocks.packing import stored_blocks, verify_blocks
from robustbert.data.corpus import IndexedCorpus, corpus_file
from robustbert.data.errors import DataError
from robustbert.data.preparation.not_taken import incomplete_summary, summary_of
from robustbert.data.tokenizer import load_tokenizer
from robustbert.inspection.histogram import LengthHistogram

_WINDOW = 1 << 22  # sentences, documents or tokens at a time
_NUM_REMARKS = 3


def corpus_facts(corpus: IndexedCorpus) -> dict:
    """The counts, sizes and origin of a corpus, for a script. Reads the manifest only."""
    manifest = corpus.manifest
    return {
        "corpus": str(corpus.prefix),
        "documents": manifest.num_documents,
        "sentences": manifest.num_sentences,
        "tokens": manifest.num_tokens,
        "characters": manifest.num_characters,
        "bytes": manifest.bin_size + manifest.idx_size,
        "dtype": str(corpus.dtype),
        "vocabulary": manifest.vocab_size,
        "tokenizer": str(corpus.tokenizer_dir),
        "tokenizer_sha256": manifest.tokenizer_sha256,
        "not_taken": manifest.not_taken,
        "remarks": manifest.remarks,
        "blocks": [f"{packing_format}-{length}" for packing_format, length in stored_blocks(corpus)],
        "source": manifest.source,
    }


def describe_corpus(corpus: IndexedCorpus) -> list[str]:
    """The facts, and the lengths of sentences and documents as plots."""
    facts = corpus_facts(corpus)
    source = facts["source"].get("text", "unknown")
    per_token = facts["characters"] / max(1, facts["tokens"])
    lines = [
        f"corpus       {corpus.prefix}",
        f"made of      {', '.join(source) if isinstance(source, list) else source}",
        f"documents    {facts['documents']:,}",
        f"sentences    {facts['sentences']:,}",
        f"tokens       {facts['tokens']:,} ({facts['dtype']}) of {facts['characters']:,} characters, {per_token:.2f} a token",
        f"on disk      {facts['bytes']:,} bytes",
        f"vocabulary   {facts['vocabulary']:,}, tokenizer {facts['tokenizer']} (sha256 {facts['tokenizer_sha256'][:12]})",
        f"blocks of    {', '.join(facts['blocks']) or 'none yet: they are built when a run or tools/preprocess first needs them'}",
    ]
    if summary := summary_of(facts["not_taken"]):
        lines.append(f"not taken    {summary}")
    if incomplete := incomplete_summary(facts["not_taken"]):
        lines.append(f"incomplete   {incomplete}")
    lines += [f"note         {remark}" for remark in facts["remarks"].get("examples", [])[:_NUM_REMARKS]]
    sentences, documents = length_histograms(corpus)
    return [*lines, "", *sentences.plot("tokens of a sentence"), "", *documents.plot("tokens of a document")]


def length_histograms(corpus: IndexedCorpus) -> tuple[LengthHistogram, LengthHistogram]:
    """The tokens of the sentences and of the documents."""
    sentences = (corpus.sentence_lengths[start:stop] for start, stop in _windows(corpus.num_sentences))
    documents = (corpus.document_lengths(start, stop) for start, stop in _windows(corpus.num_documents))
    return LengthHistogram(sentences), LengthHistogram(documents)


def describe_together(corpora: list[IndexedCorpus]) -> list[str]:
    """One line a corpus, and the sums."""
    width = max(len(str(corpus.prefix)) for corpus in corpora)
    lines = [f"{'corpus':<{width}} {'documents':>14} {'sentences':>16} {'tokens':>18} {'bytes':>18}"]
    totals = np.zeros(4, np.int64)
    for corpus in corpora:
        facts = corpus_facts(corpus)
        counts = [facts[key] for key in ("documents", "sentences", "tokens", "bytes")]
        totals += counts
        lines.append("{:<{}} {:>14,} {:>16,} {:>18,} {:>18,}".format(str(corpus.prefix), width, *counts))
    return [*lines, "{:<{}} {:>14,} {:>16,} {:>18,} {:>18,}".format(f"{len(corpora)} corpora", width, *totals.tolist())]


def verify_corpus(corpus: IndexedCorpus, report: Callable[[str], None]) -> None:
    """Compare everything with what was prepared; report gets a line about each check that was passed.

    DataError at the first difference. Reads every file whole, and builds the stored blocks once more.
    """
    corpus.verify()
    report("the .bin and .idx have the checksums of the manifest")
    _check_index(corpus)
    report("sentences follow each other without a gap, documents begin in order")
    _check_ids(corpus)
    report(f"every id is below {corpus.manifest.vocab_size:,}, and the counts of ids are right")
    tokenizer = load_tokenizer(corpus.tokenizer_dir)
    if tokenizer.sha256 != corpus.manifest.tokenizer_sha256:
        raise DataError(f"{corpus.tokenizer_dir}: is another tokenizer than the corpus was made with; copy that one here")
    report("the tokenizer beside it is the one it was made with")
    for packing_format, length in stored_blocks(corpus):
        verify_blocks(corpus, packing_format, length, tokenizer)
        report(f"the blocks {packing_format}-{length} are those of this corpus")


def _check_index(corpus: IndexedCorpus) -> None:
    path = corpus_file(corpus.prefix, "idx")
    expected = 0
    for start, stop in _windows(corpus.num_sentences):
        lengths = corpus.sentence_lengths[start:stop].astype(np.int64)
        ends = expected + np.cumsum(lengths)
        if lengths.min() < 0 or not np.array_equal(corpus.sentence_starts(start, stop), ends - lengths):
            raise DataError(f"{path}: the sentences {start:,} to {stop:,} do not follow each other; prepare the corpus again")
        expected = int(ends[-1])
    if expected != corpus.num_tokens:
        raise DataError(f"{path}: its sentences hold {expected:,} tokens of {corpus.num_tokens:,}; prepare the corpus again")
    for start, stop in _windows(corpus.num_documents):
        if (np.diff(corpus.document_indices[start : stop + 1]) < 0).any():
            raise DataError(f"{path}: the documents {start:,} to {stop:,} are not in order; prepare the corpus again")


def _check_ids(corpus: IndexedCorpus) -> None:
    counts = np.zeros(corpus.manifest.vocab_size, np.int64)
    for start, stop in _windows(corpus.num_tokens):
        part = np.bincount(corpus.tokens[start:stop], minlength=len(counts))
        if len(part) > len(counts):
            path = corpus_file(corpus.prefix, "bin")
            raise DataError(f"{path}: holds the id {len(part) - 1}, the vocabulary has {len(counts)}; prepare the corpus again")
        counts += part
    if not np.array_equal(counts, corpus.token_counts()):
        raise DataError(f"{corpus_file(corpus.prefix, 'counts.npy')}: other counts than the tokens have; prepare the corpus again")


def _windows(size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, size, _WINDOW):
        yield start, min(size, start + _WINDOW)
