"""Indexed data of Megatron-LM and fairseq: each variant is read as what it is, or refused in one line with the reason."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from robustbert.data.errors import DataError
from robustbert.data.foreign import corpus as foreign_corpus
from robustbert.data.foreign.corpus import open_foreign, prepare_foreign
from robustbert.data.foreign.fit import sample_sequences
from robustbert.data.foreign.layouts import ForeignIndex
from robustbert.data.open_corpus import check_corpus, corpus_identity
from robustbert.data.tokenizer import train_tokenizer
from tests.data.conftest import make_text
from tests.data.foreign_files import (
    FAIRSEQ_CODES,
    MEGATRON_CODES,
    as_lines,
    write_cached,
    write_dictionary,
    write_fairseq,
    write_megatron,
)

DOCUMENTS_OF_TEXT = [["The mask is hidden.", " Every day it reads."], ["A model guesses words again."], ["In turn", " and", " by day."]]
OUTSIDE = 400  # an id that the tokenizer of 340 ids does not have


@pytest.fixture(scope="module")
def documents(tokenizer) -> list[list[list[int]]]:
    return [[tokenizer.encode(sentence) for sentence in document] for document in DOCUMENTS_OF_TEXT]


@pytest.fixture(scope="module")
def letters(tokenizer) -> list[list[list[int]]]:
    """Sentences whose ids fit a signed byte: letters that the tokenizer joins with nothing."""
    documents = [[tokenizer.encode("QZXJ"), tokenizer.encode("XKQ")], [tokenizer.encode("ZJQ")]]
    assert max(id_ for document in documents for sentence in document for id_ in sentence) < 127
    return documents


def prepared(prefix, tokenizer):
    folder = Path(prefix).parent / "side"
    prepare_foreign(prefix, folder, tokenizer, "small")
    return open_foreign(prefix, folder, tokenizer)


def documents_of(corpus) -> list[list[list[int]]]:
    """The documents with tokens, as sentences with tokens."""
    bounds = corpus.document_indices.tolist()
    found = [[corpus.sentence(i).tolist() for i in range(a, b)] for a, b in zip(bounds[:-1], bounds[1:])]
    return [sentences for document in found if (sentences := [sentence for sentence in document if sentence])]


@pytest.mark.parametrize("dtype", [name for name in MEGATRON_CODES if "float" not in name])
def test_megatrons_dtypes_of_whole_numbers_are_read(letters, tokenizer, tmp_path, dtype):
    corpus = prepared(write_megatron(tmp_path / "m", letters, dtype), tokenizer)
    assert documents_of(corpus) == letters and corpus.index.dtype == dtype


@pytest.mark.parametrize("dtype", [name for name in FAIRSEQ_CODES if "float" not in name])
def test_fairseqs_dtypes_of_whole_numbers_are_read(letters, tokenizer, tmp_path, dtype):
    corpus = prepared(write_fairseq(tmp_path / "f", as_lines(letters, tokenizer.eos_id), dtype), tokenizer)
    assert documents_of(corpus) == letters and corpus.index.dtype == dtype


def eod(documents, id_):
    return [[*document[:-1], [*document[-1], id_]] for document in documents]


def gpt2_numbered(documents, tokenizer):
    numbers = {id_: number for number, id_ in enumerate(tokenizer.gpt2_ids().tolist())}
    return [[[numbers[id_] for id_ in sentence] for sentence in document] for document in documents]


def framed(documents, tokenizer):
    return [[[tokenizer.bos_id, *sentence, tokenizer.eos_id] for sentence in document] for document in documents]


READ = {
    "Megatron-LM's documents that end with </s> (--append-eod)": lambda p, d, t: write_megatron(p, eod(d, t.eos_id)),
    "Megatron-LM's documents that end with an id beyond the vocabulary": lambda p, d, t: write_megatron(p, eod(d, OUTSIDE)),
    "empty documents": lambda p, d, t: write_megatron(p, [[], d[0], [], [], *d[1:], []]),
    "empty documents among those that end with </s>": lambda p, d, t: write_megatron(p, [[], *eod(d, t.eos_id)[:1], [], *eod(d, t.eos_id)[1:]]),
    "sequences framed in <s> and </s>": lambda p, d, t: write_megatron(p, framed(d, t)),
    "sequences without a token": lambda p, d, t: write_megatron(p, [[[], *document, []] for document in d]),
    "a multimodal index whose sequences are all text": lambda p, d, t: write_megatron(p, d, modes=[0] * 6),
    "fairseq's lines, the last document without a blank line": lambda p, d, t: write_fairseq(p, as_lines(d, t.eos_id)[:-1]),
    "fairseq's several blank lines, before and between": lambda p, d, t: write_fairseq(
        p, [[t.eos_id], *(x for line in as_lines(d, t.eos_id) for x in ([line] if len(line) > 1 else [line] * 3))]
    ),
    "fairseq's lazy or cached format": lambda p, d, t: write_cached(p, as_lines(d, t.eos_id)),
}


@pytest.mark.parametrize("variant", READ)
def test_variants_are_read_as_their_documents(documents, tokenizer, tmp_path, variant):
    corpus = prepared(READ[variant](tmp_path / "data", documents, tokenizer), tokenizer)
    assert documents_of(corpus) == documents
    flat = [id_ for document in documents for sentence in document for id_ in sentence]
    assert corpus.tokens[:].tolist() == flat and corpus.num_tokens == len(flat)
    ends = np.cumsum([sum(map(len, document)) for document in documents])
    assert corpus.document_ends.tolist() == ends.tolist() and corpus.num_documents == 3
    assert corpus.document_lengths(1, 3).tolist() == np.diff(ends).tolist()
    assert corpus.token_counts().tolist() == np.bincount(flat, minlength=340).tolist()


def test_gpt2s_numbers_are_told_from_robertas_ids(roberta_tokenizer, tmp_path):
    """Megatron-LM's GPT2BPETokenizer numbers tokens as encoder.json does; RoBERTa's ids are the lines of dict.txt. All are in range."""
    documents = [[roberta_tokenizer.encode(line) for line in make_text(1, seed).split("\n") if line] for seed in range(9)]
    own = prepared(write_megatron(tmp_path / "own", documents), roberta_tokenizer)
    ended = eod(gpt2_numbered(documents, roberta_tokenizer), 50256)  # <|endoftext|>
    gpt2 = prepared(write_megatron(tmp_path / "gpt2", ended), roberta_tokenizer)
    assert documents_of(own) == documents_of(gpt2) == documents
    assert own.facts.numbering == "the tokenizer's ids" and gpt2.facts.numbering == "GPT-2's numbers (encoder.json)"


def test_fairseqs_ids_are_those_of_the_dictionary_beside_them(documents, tokenizer, tmp_path):
    """fairseq 0.12.2: line i of dict.txt, from 0 on, is id i + 4; a name is the token, or a number of GPT-2's."""
    names = sorted((name for name, id_ in tokenizer.token_ids().items() if id_ not in tokenizer.special_ids), reverse=True)
    order = {tokenizer.token_ids()[name]: i + 4 for i, name in enumerate(names)}
    numbers = [str(int(np.flatnonzero(tokenizer.gpt2_ids() == tokenizer.token_ids()[name])[0])) for name in names]
    lines = as_lines([[[order[id_] for id_ in sentence] for sentence in document] for document in documents], 2)
    for kind, listed in (("tokens", names), ("numbers", numbers)):
        (tmp_path / kind).mkdir()
        write_dictionary(tmp_path / kind, [*listed, "madeupword0000"])
        corpus = prepared(write_fairseq(tmp_path / kind / "train", lines), tokenizer)
        assert documents_of(corpus) == documents
        cached = prepared(write_cached(tmp_path / kind / "cached", lines), tokenizer)
        assert documents_of(cached) == documents


def cut(path, by):
    path.write_bytes(path.read_bytes()[:-by])


def replaced(path, at, content):
    changed = bytearray(path.read_bytes())
    changed[at : at + len(content)] = content
    path.write_bytes(changed)


def bin_of_another(prefix, documents, tokenizer):
    write_megatron(prefix, documents)
    write_megatron(prefix.with_name("other"), [*documents, *documents])
    shutil.copy(prefix.with_name("other.bin"), f"{prefix}.bin")


def names_exchanged(prefix, documents, tokenizer):
    write_megatron(prefix, documents)
    Path(f"{prefix}.idx").rename(prefix.with_name("x"))
    Path(f"{prefix}.bin").rename(f"{prefix}.idx")
    prefix.with_name("x").rename(f"{prefix}.bin")


def then(write, change):
    def both(prefix, documents, tokenizer):
        write(prefix, documents, tokenizer)
        change(Path(f"{prefix}.bin"), Path(f"{prefix}.idx"))

    return both


def megatron(prefix, documents, tokenizer):
    write_megatron(prefix, documents)


def fairseq(prefix, documents, tokenizer):
    write_fairseq(prefix, as_lines(documents, tokenizer.eos_id))


REFUSED = {
    "a cut-off .bin": (then(megatron, lambda b, i: cut(b, 2)), r"data.bin: cut off or of another .idx: it has \d+ bytes"),
    "a .bin that is too long": (bin_of_another, r"data.bin: too long or of another .idx"),
    "a cut-off .idx": (then(megatron, lambda b, i: cut(i, 8)), r"data.idx: cut off or damaged, it has \d+ bytes; 6 sequences take \d+"),
    "a cut-off .idx of fairseq": (then(fairseq, lambda b, i: cut(i, 4)), "data.idx: cut off or damaged"),
    "half a header": (then(megatron, lambda b, i: i.write_bytes(i.read_bytes()[:20])), "cut off after 20 bytes"),
    "an .idx without .bin": (then(megatron, lambda b, i: b.unlink()), "data.bin: missing, data.idx is there"),
    "a .bin without .idx": (then(megatron, lambda b, i: i.unlink()), "data.idx: missing, data.bin is there"),
    "exchanged names": (names_exchanged, "the two names are exchanged"),
    "another format": (then(megatron, lambda b, i: i.write_bytes(b"PK\x03\x04" * 20)), "neither Megatron-LM's index nor fairseq's"),
    "fairseq's huffman": (then(fairseq, lambda b, i: replaced(i, 0, b"HUFFIDX\0\0")), "huffman, .*--dataset-impl mmap"),
    "another version": (then(megatron, lambda b, i: replaced(i, 9, b"\x02")), "version 2 of the MMIDIDX format"),
    "a dtype of neither": (then(megatron, lambda b, i: replaced(i, 17, b"\x0b")), "dtype code 11: unknown"),
    "fairseq's uint32 in Megatron-LM's": (then(megatron, lambda b, i: replaced(i, 17, b"\x09")), "Megatron-LM's index, dtype code 9: unknown"),
    "Megatron-LM's float32": (lambda p, d, t: write_megatron(p, d, "float32"), "dtype code 7: floating-point numbers"),
    "fairseq's float64": (lambda p, d, t: write_fairseq(p, as_lines(d, 2), "float64"), "dtype code 6: floating-point"),
    "fairseq's double": (lambda p, d, t: write_fairseq(p, as_lines(d, 2), "float64", 7), "dtype code 7: floating-point"),
    "no documents ended": (lambda p, d, t: write_megatron(p, d, bounds=[0]), "its documents reach from sequence 0 to 0, it has 6"),
    "documents out of order": (lambda p, d, t: write_megatron(p, d, bounds=[0, 4, 2, 6]), "document 1 ends before it starts"),
    "pictures": (lambda p, d, t: write_megatron(p, d, modes=[0, 0, 1, 0, 0, 0]), "multimodal data, sequence 2 is no text"),
    "no sequence": (lambda p, d, t: write_megatron(p, [[]]), "holds no sequence"),
    "sequences with a gap": (then(megatron, lambda b, i: replaced(i, 34 + 24 + 8, b"\x02")), "sequence 1 does not follow the one before it"),
    "lines without </s>": (lambda p, d, t: write_fairseq(p, [s for x in d for s in x]), "line 0 does not end with </s>"),
    "an empty line without </s>": (lambda p, d, t: write_fairseq(p, [*as_lines(d, 2), []]), "sequence 9 has 0 ids, no room"),
    "an id beyond the vocabulary": (lambda p, d, t: write_megatron(p, [[[5, OUTSIDE, 6]], *d]), "sequence 0 holds the id 400"),
    "padding inside": (lambda p, d, t: write_megatron(p, [[[*d[0][0], 1, 1]], *d]), "sequence 0 holds <pad> inside"),
    "a damaged TNTIDX": (then(lambda p, d, t: write_cached(p, as_lines(d, 2)), lambda b, i: cut(i, 8)), "TNTIDX .*--dataset-impl mmap"),
}


@pytest.mark.parametrize("variant", REFUSED)
def test_variants_that_are_no_such_data_are_refused_in_one_line(documents, tokenizer, tmp_path, variant):
    write, message = REFUSED[variant]
    write(tmp_path / "data", documents, tokenizer)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DataError, match=message) as refusal:
        prepared(tmp_path / "data", tokenizer)
    assert "\n" not in str(refusal.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_ids_of_another_tokenizer_of_the_same_size_are_refused_at_submission(documents, tmp_path):
    """Every id is in range: only the way back from the text tells."""
    other = train_tokenizer(iter(make_text(50).split("\n")[::-1]), 340)
    mine = train_tokenizer(iter("".join(chr(97 + (i * j) % 26) for j in range(40)) for i in range(300)), 340)
    write_megatron(tmp_path / "data", [[other.encode(sentence) for sentence in make_text(20).split("\n") if sentence]])
    with pytest.raises(DataError, match=r"its ids are not those of the tokenizer mine .*, \d+ of \d+ sampled sequences"):
        check_corpus(tmp_path / "data", mine, "mine")
    check_corpus(tmp_path / "data", other, "other")


def test_a_single_stray_id_in_the_middle_is_found_by_reading_all(documents, tokenizer, tmp_path, monkeypatch):
    many = documents * 400
    sampled = {sequence.number for sequence in sample_sequences(ForeignIndex(write_megatron(tmp_path / "data", many)))}
    number = next(6 * i + 2 for i in range(200, 400) if 6 * i + 2 not in sampled)  # of a document of one sequence
    many[number // 2] = [[5, OUTSIDE, 6]]
    write_megatron(tmp_path / "data", many)
    check_corpus(tmp_path / "data", tokenizer, "small")
    with pytest.raises(DataError, match=rf"sequence {number} holds the id 400, .* none of the tokenizer's"):
        prepared(tmp_path / "data", tokenizer)
    monkeypatch.setattr(foreign_corpus, "_COUNTED_TOKENS", 1000)  # as if the data were larger than what is read at the start
    monkeypatch.setattr(foreign_corpus, "_PART_TOKENS", 100)
    corpus = prepared(write_megatron(tmp_path / "large", documents * 400), tokenizer)
    assert 900 < corpus.facts.num_counted < 1300 and abs(corpus.token_counts().sum() / corpus.num_tokens - 1) < 0.01


def test_changed_data_are_noticed_and_copied_ones_are_the_same(documents, tokenizer, tmp_path):
    prefix = write_megatron(tmp_path / "data", documents)
    before = corpus_identity(prefix)
    prepared(prefix, tokenizer)
    for ending in ("bin", "idx"):
        shutil.copy(f"{prefix}.{ending}", tmp_path / f"copy.{ending}")
    assert corpus_identity(tmp_path / "copy") == before and before.startswith("foreign ")
    write_megatron(prefix, [*documents[::-1]])
    assert corpus_identity(prefix) != before
    with pytest.raises(DataError, match=r"data: its data changed since a run read them .* start a new run"):
        prepared(prefix, tokenizer)
