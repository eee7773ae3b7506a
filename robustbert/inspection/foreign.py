"""What foreign indexed data are, some of their sequences, and whether every id is a tokenizer's."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from robustbert.data.errors import DataError
from robustbert.data.foreign.corpus import ForeignCorpus, count_ids, open_foreign, open_index, prepare_foreign
from robustbert.data.foreign.fit import find_fit
from robustbert.data.foreign.frames import Frames
from robustbert.data.foreign.identity import identity_of
from robustbert.data.foreign.layouts import FAIRSEQ, FAIRSEQ_CACHED
from robustbert.data.foreign.side_files import build_index
from robustbert.data.tokenizer import Tokenizer

_SHOWN_IDS = 24


def foreign_facts(prefix: Path, tokenizer: Tokenizer | None, tokenizer_name: str) -> dict:
    """What it is, for a script; the index is read once. With a tokenizer also how its ids are read."""
    index = open_index(prefix)
    fit = None if tokenizer is None else find_fit(index, tokenizer, tokenizer_name)
    # fairseq's blank lines hold its </s> alone.
    frames = fit.frames if fit else Frames(tail=1) if index.kind in (FAIRSEQ, FAIRSEQ_CACHED) else Frames()
    _, _, num_tokens, num_sentences, num_documents = build_index(index, frames)
    facts = {
        "foreign": str(prefix),
        "format": index.kind,
        "identity": identity_of(prefix),
        "sequences": index.num_sequences,
        "sequences_with_tokens": num_sentences,
        "documents": num_documents,
        "tokens": num_tokens if fit else index.num_tokens,
        "dtype": str(index.dtype),
        "bytes": index.idx_size + index.bin_size,
    }
    if fit:
        facts["ids"] = fit.numbering.name
        facts["left_out"] = fit.frames.in_words()
        facts["sampled"], facts["sampled_back"] = fit.num_tried, fit.num_back
    return facts


def describe_foreign(prefix: Path, tokenizer: Tokenizer | None, tokenizer_name: str) -> list[str]:
    """The same in lines, with the first sequences."""
    facts = foreign_facts(prefix, tokenizer, tokenizer_name)
    whole = facts["sequences_with_tokens"] == facts["documents"]
    is_fairseq = facts["format"] in (FAIRSEQ, FAIRSEQ_CACHED)
    parted = "a sequence each" if whole else "parted by lines of </s> alone" if is_fairseq else "of several sequences"
    lines = [
        f"{facts['format'] + ' data':<12} {prefix}",
        f"documents    {facts['documents']:,}, {parted}",
        f"sequences    {facts['sequences']:,}, {facts['sequences_with_tokens']:,} of them with tokens",
        f"tokens       {facts['tokens']:,} ({facts['dtype']}){'' if tokenizer else ', special ones included'}",
        f"on disk      {facts['bytes']:,} bytes",
        f"identity     {facts['identity']}",
    ]
    if tokenizer is None:
        lines.append("ids          not looked at: give --tokenizer DIR, the one that made them")
    else:
        back = f"{facts['sampled_back']} of {facts['sampled']} sampled sequences are what the tokenizer makes of their own text"
        lines.append(f"ids          {facts['ids']}; {back}")
        lines += [f"left out     {facts['left_out']}"] if facts["left_out"] else []
    lines.append("in a run     data.train: [{path: " + str(prefix) + "}], data.tokenizer: the folder of the tokenizer that made them")
    return [*lines, "", *_first_sequences(prefix, tokenizer, tokenizer_name)]


def verify_foreign(prefix: Path, tokenizer: Tokenizer, tokenizer_name: str, report: Callable[[str], None]) -> None:
    """Read everything; report gets a line about each check that was passed. DataError, with the sequence, at the first fault."""
    index = open_index(prefix)
    fit = find_fit(index, tokenizer, tokenizer_name)
    _, bounds, num_tokens, *_ = build_index(index, fit.frames)
    report("sequences follow each other without a gap, documents end in order, the .bin ends with the last one")
    _, num_counted = count_ids(index, fit, bounds, tokenizer, most_tokens=index.num_tokens)
    assert num_counted == num_tokens, (num_counted, num_tokens)
    report(f"each of the {num_tokens:,} ids is one of the tokenizer's, read as {fit.numbering.name}; no special one is inside")


@contextmanager
def opened_for_inspection(prefix: Path, tokenizer: Tokenizer, tokenizer_name: str) -> Iterator[ForeignCorpus]:
    """The data opened as a run opens them; their side files are in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        prepare_foreign(prefix, folder, tokenizer, tokenizer_name)
        yield open_foreign(prefix, folder, tokenizer)


def _first_sequences(prefix: Path, tokenizer: Tokenizer | None, tokenizer_name: str, count: int = 2) -> list[str]:
    index = open_index(prefix)
    fit = None if tokenizer is None else find_fit(index, tokenizer, tokenizer_name)
    items, lines = index.items(), []
    for number in range(min(count, index.num_sequences)):
        start, length = int(index.starts(number, number + 1)[0]), int(index.lengths(number, number + 1)[0])
        stored = np.asarray(items[start : start + min(length, _SHOWN_IDS)])
        more = " ..." if length > _SHOWN_IDS else ""
        lines.append(f"sequence {number}: {' '.join(map(str, stored.tolist()))}{more}")
        if fit:
            ids = fit.numbering.ids(stored)
            lines.append(f"            {tokenizer.decode(ids[ids >= 0])}{more}")
    if index.num_tokens == 0:
        raise DataError(f"{prefix}: holds no token")
    return lines
