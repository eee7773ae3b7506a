"""Foreign data in a run: the batches of tools/preprocess, in parts, never written, and side files that are safe and small."""

import hashlib
import json
import shutil
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from robustbert.config import CorpusConfig, DataConfig, TrainConfig
from robustbert.data.batches import build_train_batches
from robustbert.data.blocks.packing import FORMATS
from robustbert.data.blocks.rows import copy_spans
from robustbert.data.errors import DataError
from robustbert.data.foreign import side_files
from robustbert.data.foreign.corpus import open_foreign, prepare_foreign
from robustbert.data.foreign.frames import Frames
from robustbert.data.foreign.layouts import ForeignIndex
from robustbert.data.preparation.indexing import prepare_corpus
from robustbert.data.preparation.preprocess import main as preprocess
from robustbert.data.prepare import check_sources, prepare_run, prepared_data, unigram_perplexity
from robustbert.data.shards import find_prefixes
from robustbert.data.text.readers import find_source
from robustbert.inspection.cli import main as inspect
from tests.data.conftest import make_text
from tests.data.foreign_files import as_lines, write_cached, write_fairseq, write_megatron
from tests.data.test_foreign import documents_of, eod


def config_of(path, tokenizer_dir, packing_format="full-sentences", **options):
    options = {"sequence_length": 64, "num_workers": 0, "prepare_workers": 1} | options
    return DataConfig(str(tokenizer_dir), (CorpusConfig(path=str(path)),), format=packing_format, **options)


@pytest.fixture(scope="module")
def own(tokenizer, tokenizer_dir, tmp_path_factory):
    """A text that tools/preprocess indexed: its prefix and its documents."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "text.txt").write_text(make_text(80, seed=5))
    prepare_corpus([find_source(str(folder / "text.txt"))], tokenizer, tokenizer_dir, folder / "own")
    from robustbert.data.corpus import IndexedCorpus

    return folder / "own", documents_of(IndexedCorpus(folder / "own"))


def batches_of(path, tokenizer_dir, data_dir, packing_format):
    config = config_of(path, tokenizer_dir, packing_format)
    prepared = prepare_run(config, data_dir)
    train = TrainConfig(global_batch_size=16, micro_batch_size=4)
    batches = build_train_batches(prepared, config, train, 3, 0, 1)
    return [batch for step in range(20) for batch in batches.micro_batches(step)], prepared


@pytest.mark.parametrize("packing_format", FORMATS)
def test_the_batches_of_20_steps_are_bitwise_those_of_tools_preprocess(own, tokenizer, tokenizer_dir, tmp_path, packing_format):
    prefix, documents = own
    expected, _ = batches_of(prefix, tokenizer_dir, tmp_path / "data", packing_format)
    lines = as_lines(documents, tokenizer.eos_id)
    variants = {
        "megatron": write_megatron(tmp_path / "megatron", documents),
        "ended": write_megatron(tmp_path / "ended", eod(documents, tokenizer.eos_id), "int32"),
        "fairseq": write_fairseq(tmp_path / "fairseq", lines),
        "cached": write_cached(tmp_path / "cached", lines),
    }
    for name, path in variants.items():
        found, _ = batches_of(path, tokenizer_dir, tmp_path / f"data_{name}", packing_format)
        assert len(found) == len(expected)
        for batch, other in zip(expected, found):
            for key, tensor in vars(batch).items():
                same = torch.equal(tensor, getattr(other, key)) if torch.is_tensor(tensor) else tensor == getattr(other, key)
                assert same, (name, key)


def test_any_slice_of_the_kept_tokens_is_that_of_the_tokens_in_one_row(own, tokenizer, tmp_path, monkeypatch):
    documents = own[1][:40]
    flat = np.array([id_ for document in documents for sentence in document for id_ in sentence])
    rng = np.random.default_rng(1)
    for name, path in (
        ("lines", write_fairseq(tmp_path / "lines", as_lines(documents, tokenizer.eos_id))),
        ("ended", write_megatron(tmp_path / "ended", eod(documents, tokenizer.eos_id))),
        ("framed", write_megatron(tmp_path / "framed", [[[0, *s, 2] for s in document] for document in documents])),
    ):
        for stride in (512, 3):  # several entries of the coarse table
            monkeypatch.setattr("robustbert.data.foreign.frames.STRIDE", stride)
            monkeypatch.setattr(side_files, "STRIDE", stride)
            prepare_foreign(path, tmp_path / f"side{stride}", tokenizer, "small")
            corpus = open_foreign(path, tmp_path / f"side{stride}", tokenizer)
            assert corpus.frames.per_run == {"lines": 1, "ended": 1, "framed": 2}[name]
            spans = np.sort(rng.integers(0, len(flat) + 1, (200, 2)), axis=1)
            lengths = np.minimum(spans[:, 1] - spans[:, 0], 40)
            places = np.cumsum(lengths) - lengths
            target, expected = np.zeros((2, int(lengths.sum())), np.int64)
            copy_spans(corpus.tokens, target, spans[:, 0], places, lengths)
            copy_spans(flat, expected, spans[:, 0], places, lengths)
            assert np.array_equal(target, expected), (name, stride)
            for start, stop in np.sort(rng.integers(0, len(flat) + 1, (200, 2)), axis=1).tolist():
                assert corpus.tokens[start:stop].tolist() == flat[start:stop].tolist(), (name, stride, start, stop)


def test_whole_documents_fill_the_blocks_and_have_no_pairs_of_sentences(own, tokenizer, tokenizer_dir, tmp_path):
    """A document is one sequence (Megatron-LM without --split-sentences): it is cut where blocks end, no token is lost."""
    whole = [[[id_ for sentence in document for id_ in sentence]] for document in own[1]]
    path = write_megatron(tmp_path / "whole", whole)
    for packing_format in ("full-sentences", "doc-sentences", "segment-pair"):
        batches, prepared = batches_of(path, tokenizer_dir, tmp_path / f"data_{packing_format}", packing_format)
        assert sum(batch.num_real_tokens for batch in batches) > 0
    (corpus,) = prepared.train[0].open_parts(tokenizer)
    from robustbert.data.blocks.packing import open_packing

    full = open_packing(corpus, "full-sentences", 64, tokenizer)
    tokens, lengths = full.blocks(np.arange(len(full)))
    assert lengths.mean() > 64 - 8 and lengths.max() <= 64
    flat = [id_ for (document,) in whole for id_ in document]
    assert [id_ for id_ in tokens.ravel().tolist() if id_ not in (0, 1, 2)] == flat
    with pytest.raises(DataError, match="whole documents, one sequence each, and sentence-pair needs their sentences"):
        prepare_run(config_of(path, tokenizer_dir, "sentence-pair"), tmp_path / "data")


def test_parts_are_named_by_a_pattern_a_list_or_fairseqs_folders(own, tokenizer, tokenizer_dir, tmp_path):
    documents = own[1]
    for number, name in enumerate(("bin0/train", "bin0/train1", "bin0/train2", "bin0/train4", "bin0/valid", "bin1/train")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_fairseq(tmp_path / name, as_lines(documents[10 * number : 10 * number + 10], tokenizer.eos_id))
    bin0, bin1 = tmp_path / "bin0", tmp_path / "bin1"
    first = [bin0 / "train", bin0 / "train1", bin0 / "train2"]  # fairseq 0.12.2 counts as far as the files go
    assert find_prefixes(str(bin0)) == first and find_prefixes(str(bin0), "valid") == [bin0 / "valid"]
    assert find_prefixes(f"{bin0}:{bin1}") == [*first, bin1 / "train"] == find_prefixes(str(tmp_path / "bin*"))
    assert find_prefixes(str(bin0 / "train?")) == [bin0 / f"train{i}" for i in (1, 2, 4)]
    config = config_of(f"{bin0}:{bin1}", tokenizer_dir, valid=(CorpusConfig(path=str(bin0)),))
    prepared = prepare_run(config, tmp_path / "data")
    assert sum(part.num_documents for part in prepared.train[0].open_parts(tokenizer)) == 40
    assert [part.prefix.name for part in prepared.valid[0].open_parts(tokenizer)] == ["valid"]
    assert unigram_perplexity(prepared) > 1
    with pytest.raises(DataError, match="is a folder without valid.idx"):
        find_prefixes(str(bin1), "valid")


def test_the_data_are_never_written_and_the_side_files_lie_where_the_user_says(own, tokenizer, tokenizer_dir, tmp_path):
    (tmp_path / "theirs").mkdir()
    path = write_megatron(tmp_path / "theirs/data", own[1])
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.parent.iterdir()}
    (tmp_path / "theirs").chmod(0o500)
    config = config_of(path, tokenizer_dir, index_dir=str(tmp_path / "index"))
    seen = []
    for _ in range(2):
        prepare_run(config, tmp_path / "data", lambda *event: seen.append(event))
    assert {name for name, *_ in seen} == {"index of data", "ids of data"} and len(seen) == 2  # made once
    assert prepared_data(config, tmp_path / "data").train[0].open_parts(tokenizer)[0].num_documents == len(own[1])
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.parent.iterdir()} == before
    assert sorted(file.name.partition(".")[2] for file in (tmp_path / "index").iterdir()) == [
        "arrays.npy",
        "full-sentences-64.npy",
        "json",
    ]
    write_megatron(path, own[1][1:])  # of another content, under the run
    with pytest.raises(DataError, match="its data changed since a run read them"):
        prepared_data(config, tmp_path / "data")
    with pytest.raises(DataError, match="its data changed since a run read them"):
        prepare_run(config, tmp_path / "data")


def test_many_may_make_the_side_files_at_once(own, tokenizer, tmp_path):
    path = write_fairseq(tmp_path / "data", as_lines(own[1], tokenizer.eos_id))
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(prepare_foreign, path, tmp_path / "side", tokenizer, "small") for _ in range(16)]:
            done.result()
    assert documents_of(open_foreign(path, tmp_path / "side", tokenizer)) == own[1]
    assert len(list((tmp_path / "side").iterdir())) == 2  # nothing partial is left


def test_the_memory_of_making_them_does_not_grow_with_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(side_files, "_WINDOW", 1 << 17)
    peaks = []
    for count in (500_000, 2_000_000):
        lengths = np.full(count, 25, np.int32)
        lengths[::20] = 1
        places = (np.cumsum(lengths, dtype=np.int64) - lengths) * 2
        header = b"MMIDIDX\0\0" + (1).to_bytes(8, "little") + bytes([8]) + count.to_bytes(8, "little")
        (tmp_path / "big.idx").write_bytes(header + lengths.tobytes() + places.tobytes())
        with open(tmp_path / "big.bin", "wb") as file:
            file.truncate(2 * int(lengths.sum()))
        tracemalloc.start()
        coarse, bounds, *numbers = side_files.build_index(ForeignIndex(tmp_path / "big"), Frames(tail=1))
        peaks.append(tracemalloc.get_traced_memory()[1] - coarse.nbytes - 2 * bounds.nbytes)
        tracemalloc.stop()
        assert numbers == [24 * (count - count // 20), count - count // 20, count // 20]
    assert peaks[1] < 1.3 * peaks[0]


def contents(folder: Path) -> dict:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("what", ["megatron", "fairseq", "a .json of the user's", "a .bin of the user's", "a folder PREFIX.tokenizer"])
def test_overwrite_never_replaces_what_is_not_ours(own, tokenizer, tokenizer_dir, tmp_path, what, capsys):
    (tmp_path / "out").mkdir()
    output = tmp_path / "out/x"
    if what == "megatron":
        write_megatron(output, own[1])
    elif what == "fairseq":
        write_fairseq(output, as_lines(own[1], 2))
    elif what == "a .json of the user's":
        Path(f"{output}.json").write_text('{"mine": 1}')
    elif what == "a .bin of the user's":
        Path(f"{output}.bin").write_bytes(b"mine")
    else:
        Path(f"{output}.tokenizer").mkdir()
        Path(f"{output}.tokenizer/notes.txt").write_text("mine")
    before = contents(tmp_path)
    text = own[0].parent / "text.txt"
    arguments = ["--input", str(text), "--tokenizer", str(tokenizer_dir), "--output", str(output), "--workers", "1"]
    for overwrite in ([], ["--overwrite"]):
        assert preprocess([*arguments, *overwrite]) == 2
        error = capsys.readouterr().err
        assert ("never replaced" in error or "is not replaced" in error) and error.count("\n") == 1
        assert contents(tmp_path) == before


def test_a_folder_that_train_tokenizer_did_not_make_is_never_replaced(own, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/model.safetensors").write_text("days of work")
    arguments = ["--input", str(own[0].parent / "text.txt"), "--tokenizer", str(tmp_path / "mine"), "--output", str(tmp_path / "x")]
    assert preprocess([*arguments, "--train-tokenizer", "300", "--overwrite", "--workers", "1"]) == 2
    assert "is not replaced" in capsys.readouterr().err
    assert (tmp_path / "mine/model.safetensors").read_text() == "days of work"


def test_a_run_on_them_needs_the_tokenizer_that_made_them(own, tmp_path):
    from robustbert.config.sections import TokenizerSource, TrainTokenizerConfig

    path = write_megatron(tmp_path / "data", own[1])
    corpora = (CorpusConfig(path=str(path)), CorpusConfig(text=str(own[0].parent / "text.txt")))
    with pytest.raises(DataError, match="set data.tokenizer to its folder in place of data.tokenizer.train"):
        check_sources(DataConfig(TokenizerSource(TrainTokenizerConfig(330)), corpora, sequence_length=64))


def test_inspect_says_what_they_are(own, tokenizer, tokenizer_dir, tmp_path, capsys):
    documents = own[1]
    path = write_megatron(tmp_path / "data", documents)
    assert inspect([str(path)]) == 0
    shown = capsys.readouterr().out
    num_sequences, num_tokens = sum(map(len, documents)), sum(len(s) for d in documents for s in d)
    for words in ("Megatron-LM data", f"{num_sequences:,}", f"{num_tokens:,} (uint16)", f"documents    {len(documents)}"):
        assert words in shown
    named = ["--tokenizer", str(tokenizer_dir)]
    assert inspect([str(path), *named, "--verify", "--samples", "1"]) == 0
    shown = capsys.readouterr().out
    assert "<mask>" in shown and "data: verified" in shown
    assert inspect([str(path), *named, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["documents"] == len(documents)
    shutil.copy(f"{path}.idx", tmp_path / "stray.idx")
    ids = np.fromfile(f"{path}.bin", np.uint16)
    ids[len(ids) // 2] = 400
    ids.tofile(tmp_path / "stray.bin")
    assert inspect([str(tmp_path / "stray"), *named, "--verify"]) in (1, 2)
    assert "holds the id 400" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.bin", "data.idx", "stray.bin", "stray.idx"]


def test_a_folder_for_the_side_files_that_cannot_be_written_is_refused_with_the_way_out(own, tokenizer_dir, tmp_path):
    (tmp_path / "file").write_text("in the way")
    config = config_of(write_megatron(tmp_path / "data", own[1]), tokenizer_dir, index_dir=str(tmp_path / "file/index"))
    with pytest.raises(DataError, match=r"file/index: the index of .*data cannot be written .*; set data.index_dir to a folder with space"):
        prepare_run(config, tmp_path / "run")
