"""No wait and no memory at the start, however large the data: 10^8 blocks, 1,024 ranks, 64 shards."""

import dataclasses
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from robustbert.config import CorpusConfig, DataConfig, TrainConfig
from robustbert.data.batches import build_train_batches
from robustbert.data.blocks.block_index import write_block_index
from robustbert.data.blocks.packing import open_packing
from robustbert.data.blocks.rows import BlockSizes
from robustbert.data.corpus import DTYPE_CODES, INDEX_HEADER, INDEX_VERSION, MAGIC, IndexedCorpus, Manifest, corpus_file
from robustbert.data.prepare import PreparedCorpus, PreparedData

NUM_BLOCKS, SEQUENCE_LENGTH, NUM_RANKS = 10**8, 128, 1024
_MEASURE = """
import gc, json, sys, time
import psutil
from robustbert.config import CorpusConfig, DataConfig, TrainConfig
from robustbert.data.batches import build_train_batches
from robustbert.data.prepare import PreparedCorpus, PreparedData
from pathlib import Path
import torch, tokenizers

given = json.loads(sys.argv[1])
config = DataConfig("unused", (CorpusConfig(path="unused"),), format=given["format"], sequence_length=128, num_workers=0)
prefixes = tuple(PreparedCorpus(Path(prefix)) for prefix in given["prefixes"])
prepared = PreparedData(Path(given["tokenizer"]), 340, prefixes, ())
train = TrainConfig(global_batch_size=8192, micro_batch_size=8)
process = psutil.Process()
before, started = process.memory_info(), time.perf_counter()
batches = build_train_batches(prepared, config, train, 1, given["rank"], 1024)
opened, memory_opened = time.perf_counter(), process.memory_info()
first = batches.micro_batches(400_000)
made = time.perf_counter()
after = process.memory_info()
mapped = after.shared - before.shared  # pages of the files: the kernel's cache, shared by the processes of a node
print(json.dumps({
    "open_s": opened - started, "first_batch_s": made - opened,
    "open_megabytes": (memory_opened.rss - before.rss) / 1e6, "own_megabytes": (after.rss - before.rss - mapped) / 1e6,
    "mapped_megabytes": mapped / 1e6, "total_megabytes": after.rss / 1e6, "rows": sum(len(b.tokens_BS) for b in first),
}))
"""


def measure(prefixes, tokenizer_dir, packing_format="full-sentences", rank=0):
    given = {"prefixes": list(map(str, prefixes)), "tokenizer": str(tokenizer_dir), "format": packing_format, "rank": rank}
    done = subprocess.run([sys.executable, "-c", _MEASURE, json.dumps(given)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def write_huge_corpus(prefix, tokenizer, num_blocks, packing_format):
    """A corpus of one sparse file of zeros, and the true index of blocks of 100 tokens each (documents of 10 blocks)."""
    num_tokens = num_blocks * 100
    with open(corpus_file(prefix, "bin"), "wb") as file:
        file.truncate(num_tokens * 2)
    header = INDEX_HEADER.pack(MAGIC, INDEX_VERSION, DTYPE_CODES[np.dtype(np.uint16)], 1, 2)
    index = header + np.int32(100).tobytes() + np.int64(0).tobytes() + np.array([0, 1]).tobytes()
    corpus_file(prefix, "idx").write_bytes(index)
    numbers = dict.fromkeys((f.name for f in dataclasses.fields(Manifest) if f.type is int), 1)
    texts = dict.fromkeys((f.name for f in dataclasses.fields(Manifest) if f.type is str), str(prefix))
    manifest = Manifest(**(numbers | texts | {"source": {}, "num_tokens": num_tokens, "bin_size": num_tokens * 2}))
    manifest = dataclasses.replace(manifest, tokenizer_sha256=tokenizer.sha256, idx_size=len(index), vocab_size=340)
    corpus_file(prefix, "json").write_text(manifest.to_json())
    starts = np.arange(num_blocks + 1) * 100
    sizes = BlockSizes(num_blocks, 102 * num_blocks, num_blocks, 127 * num_blocks).to_array()
    if packing_format == "full-sentences":
        arrays = [starts, starts[10::10]]
    else:
        lengths = np.full((num_blocks, 2), 50, np.int32).view(np.int64).ravel()
        arrays = [starts[:-1], lengths, np.array([0, num_blocks]), np.array([10_000]), np.empty(0, np.int64)]
    fingerprint = IndexedCorpus(prefix).fingerprint
    write_block_index(corpus_file(prefix, f"{packing_format}-{SEQUENCE_LENGTH}.npy"), fingerprint, [sizes, *arrays])


@pytest.mark.slow
@pytest.mark.parametrize("packing_format", ["full-sentences", "segment-pair"])
def test_a_hundred_million_blocks_open_at_once_and_any_rank_has_its_batch_of_any_step(
    tokenizer, tokenizer_dir, tmp_path, packing_format
):
    write_huge_corpus(tmp_path / "huge", tokenizer, NUM_BLOCKS, packing_format)
    for rank in (0, 511, NUM_RANKS - 1):
        measured = measure([tmp_path / "huge"], tokenizer_dir, packing_format, rank)
        print(packing_format, rank, measured)
        assert measured["rows"] >= 8
        assert measured["open_s"] < 1 and measured["first_batch_s"] < 1
        assert measured["open_megabytes"] < 100 and measured["own_megabytes"] < 100
        # Where samples are sorted by length, a rank looks up the lengths of all the step's samples.
        assert measured["mapped_megabytes"] < 100 or packing_format != "full-sentences"


@pytest.mark.slow
def test_64_shards_take_no_more_memory_than_one(tokenizer, tokenizer_dir, tmp_path):
    write_huge_corpus(tmp_path / "whole", tokenizer, 640_000, "full-sentences")
    shards = [tmp_path / f"shard_{i}" for i in range(64)]
    for shard in shards:
        write_huge_corpus(shard, tokenizer, 10_000, "full-sentences")
    one, many = measure([tmp_path / "whole"], tokenizer_dir), measure(shards, tokenizer_dir)
    print(one, many)
    assert many["total_megabytes"] < 1.1 * one["total_megabytes"]
    assert many["open_s"] < 1 and many["first_batch_s"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("packing_format", ["full-sentences", "doc-sentences"])
def test_1024_ranks_together_see_every_block_once_an_epoch(random_corpus, tokenizer, tokenizer_dir, packing_format):
    corpora = [random_corpus(160, seed=3, name="three"), random_corpus(60, seed=4, name="four")]
    prepared = PreparedData(tokenizer_dir, tokenizer.vocab_size, tuple(PreparedCorpus(c.prefix) for c in corpora), ())
    config = DataConfig("unused", (CorpusConfig(path="unused"),), format=packing_format, sequence_length=64, num_workers=0)
    packed = [open_packing(corpus, packing_format, 64, tokenizer) for corpus in corpora]
    expected = Counter(tuple(p.block(i).tolist()) for p in packed for i in range(len(p)))
    train = TrainConfig(global_batch_size=NUM_RANKS, micro_batch_size=1)
    seen = Counter()
    num_left = sum(expected.values())
    first = build_train_batches(prepared, config, train, 5, 0, NUM_RANKS)
    num_steps = -(-num_left // first.samples_per_step)
    for rank in range(NUM_RANKS):
        batches = first if rank == 0 else type(first)(*first_arguments(first), rank, NUM_RANKS, 0, [])
        for step in range(num_steps - 1):  # the last step of an epoch reaches into the next one
            for batch in batches.micro_batches(step):
                if batch.num_real_tokens:
                    tokens = batch.tokens_BS[0].clone()
                    tokens[batch.masked_positions_M] = batch.targets_M
                    seen[tuple(tokens[tokens != tokenizer.pad_id].tolist())] += 1
    assert sum(seen.values()) == (num_steps - 1) * first.samples_per_step
    assert not seen - expected
    rest = first._sampler(np.arange((num_steps - 1) * first.samples_per_step, num_left))
    for corpus, block in zip(rest.corpus_N, rest.block_N):
        seen[tuple(packed[corpus].block(block).tolist())] += 1
    assert seen == expected


def first_arguments(batches):
    """What the ranks of one run share, so that 1,024 of them are quick to make."""
    return batches._blocks, batches._sampler, batches.samples_per_step, batches.num_micro_batches * NUM_RANKS
