"""The libraries' own files: megatron-core 0.16.1's IndexedDatasetBuilder and fairseq 0.12.2's preprocess, read and trained on.

fairseq lies in the folder that ROBUSTBERT_FAIRSEQ names, or is installed; see tests/convert/test_fairseq_itself.py.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from robustbert.data.corpus import IndexedCorpus
from robustbert.data.errors import DataError
from robustbert.data.foreign.layouts import FAIRSEQ_CACHED, ForeignIndex
from robustbert.data.preparation.indexing import prepare_corpus
from robustbert.data.text.readers import find_source
from robustbert.job import Job
from tests.data.conftest import make_text
from tests.data.foreign_files import FAIRSEQ_CODES, as_lines, write_cached, write_fairseq, write_megatron
from tests.data.test_foreign import documents_of, eod
from tests.train.small_run import losses, make_run, train

ROOT = Path(__file__).resolve().parents[2]
FAIRSEQ = os.environ.get("ROBUSTBERT_FAIRSEQ", "")
needs_fairseq = pytest.mark.skipif(
    not FAIRSEQ and importlib.util.find_spec("fairseq") is None,
    reason="fairseq is not installed; see the top of tests/convert/test_fairseq_itself.py and set ROBUSTBERT_FAIRSEQ to its folder",
)
pytestmark = pytest.mark.slow

_PREPROCESS = """
from robustbert.convert.fairseq_import import mended_for_fairseq
with mended_for_fairseq():
    from fairseq_cli.preprocess import cli_main
    cli_main()
"""
_BUILD = """
import sys
import numpy, torch
from robustbert.convert.fairseq_import import mended_for_fairseq
with mended_for_fairseq():
    from fairseq.data import indexed_dataset as fairseq
    for name in ("uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"):
        builder = fairseq.MMapIndexedDatasetBuilder(f"{sys.argv[1]}/{name}.bin", dtype=getattr(numpy, name))
        for line in ([5, 9, 100, 2], [2], [7, 2]):
            builder.add_item(torch.tensor(line))
        builder.finalize(f"{sys.argv[1]}/{name}.idx")
    codes = {code: numpy.dtype(kind).name for code, kind in fairseq._code_to_dtype.items()}
    print(codes)
"""


def run_fairseq(program: str, *arguments) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), FAIRSEQ]))}
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def build_megatron(prefix: Path, documents, dtype=np.uint16, modes=False) -> Path:
    """By the library."""
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype, multimodal=modes)
    for document in documents:
        for sequence in document:
            builder.add_item(torch.tensor(sequence))
        builder.end_document()
    builder.finalize(f"{prefix}.idx")
    return prefix


def same_files(one: Path, other: Path) -> bool:
    return all(Path(f"{one}.{end}").read_bytes() == Path(f"{other}.{end}").read_bytes() for end in ("bin", "idx"))


@pytest.fixture(scope="module")
def own(tokenizer, tokenizer_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "text.txt").write_text(make_text(120, seed=7))
    prepare_corpus([find_source(str(folder / "text.txt"))], tokenizer, tokenizer_dir, folder / "own")
    return folder / "own", documents_of(IndexedCorpus(folder / "own"))


@pytest.fixture(scope="module")
def data_bins(own, tokenizer, tmp_path_factory) -> Path:
    """fairseq-preprocess of the same sentences: lines of GPT-2's numbers, a blank one after each document; mmap and lazy."""
    folder = tmp_path_factory.mktemp("fairseq")
    tokenizer.save_for_fairseq(folder)
    number = {id_: str(number) for number, id_ in enumerate(tokenizer.gpt2_ids().tolist())}
    lines = (" ".join(number[id_] for id_ in line[:-1]) for line in as_lines(own[1], tokenizer.eos_id))
    (folder / "lines.txt").write_text("".join(f"{line}\n" for line in lines))
    for kind in ("mmap", "lazy"):
        options = ["--only-source", "--srcdict", folder / "dict.txt", "--trainpref", folder / "lines.txt", "--destdir", folder / kind]
        run_fairseq(_PREPROCESS, *options, "--workers", 2, "--dataset-impl", kind)
    return folder


def test_the_tests_files_are_megatron_cores_own(own, tmp_path):
    for dtype in (np.uint16, np.int32, np.int64):
        build_megatron(tmp_path / "theirs", own[1], dtype)
        assert same_files(write_megatron(tmp_path / "ours", own[1], np.dtype(dtype).name), tmp_path / "theirs")
    build_megatron(tmp_path / "theirs", [[], *own[1][:3], []], np.int32, modes=True)
    num_sequences = sum(map(len, own[1][:3]))
    assert same_files(write_megatron(tmp_path / "ours", [[], *own[1][:3], []], "int32", modes=[0] * num_sequences), tmp_path / "theirs")


@needs_fairseq
def test_the_tests_files_are_fairseqs_own(own, tokenizer, data_bins, tmp_path):
    """fairseq 0.12.2 in fact knows 6 and 7 both as float64, 9 as uint32 and 10 as uint64, and adds one to each id of TNTIDX."""
    codes = eval(run_fairseq(_BUILD, tmp_path))  # a dictionary that the program above printed
    assert codes == {v: k for k, v in FAIRSEQ_CODES.items()} | {7: "float64"}
    for name in ("uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"):
        ours = write_fairseq(tmp_path / "ours", [[5, 9, 100, 2], [2], [7, 2]], name)
        assert same_files(ours, tmp_path / name), name
    # Its dictionary is the tokenizer's, filled up to a multiple of eight; so the ids are the tokenizer's.
    assert same_files(write_fairseq(tmp_path / "ours", as_lines(own[1], 2)), data_bins / "mmap/train")
    assert same_files(write_cached(tmp_path / "ours", as_lines(own[1], 2)), data_bins / "lazy/train")
    assert ForeignIndex(data_bins / "lazy/train").kind == FAIRSEQ_CACHED


@needs_fairseq
def test_neither_library_reads_the_others(own, data_bins, tmp_path):
    """megatron-core 0.16.1 takes fairseq's first two lengths for its count of documents; fairseq reads lengths 8 bytes early."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    with pytest.raises(ValueError, match="buffer"):
        IndexedDataset(str(data_bins / "mmap/train"))
    build_megatron(tmp_path / "m", own[1])
    program = (
        "import sys\nfrom robustbert.convert.fairseq_import import mended_for_fairseq\nwith mended_for_fairseq():\n"
        "    from fairseq.data.indexed_dataset import MMapIndexedDataset\n"
        "    data = MMapIndexedDataset(sys.argv[1])\n    print(data.sizes[:2].tolist())"
    )
    assert run_fairseq(program, tmp_path / "m").strip() == str([len(own[1]) + 1, 0])  # no error: the count of documents


@needs_fairseq
def test_the_losses_of_20_steps_are_bitwise_those_of_tools_preprocess(own, tokenizer, tokenizer_dir, data_bins, tmp_path):
    prefix, documents = own
    paths = {
        "own": prefix,
        "megatron": build_megatron(tmp_path / "m", documents),
        "ended": build_megatron(tmp_path / "e", eod(documents, tokenizer.eos_id), np.int32),
        "fairseq": data_bins / "mmap",
        "lazy": data_bins / "lazy",
    }
    seen = {}
    for name, path in paths.items():
        data = (f"data.tokenizer={tokenizer_dir}", f"data.train=[{{path: '{path}'}}]", f"data.valid=[{{path: '{path}'}}]")
        if name in ("fairseq", "lazy"):
            data = (*data[:2], f"data.valid=[{{path: '{path}/train'}}]")
        config, run = make_run(tmp_path, f"run_{name}", (*data, "data.valid_fraction=0"))
        assert train(Job(), config, run) == "finished"
        finished = run.events()[-1]
        seen[name] = losses(run), finished["heldout_perplexity"], finished["unigram_perplexity"]
        assert len(seen[name][0]) == 20
    for name in paths:
        assert seen[name] == seen["own"], name


def test_a_damaged_library_file_is_refused(own, tmp_path):
    build_megatron(tmp_path / "m", own[1])
    content = (tmp_path / "m.bin").read_bytes()
    (tmp_path / "m.bin").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="cut off"):
        ForeignIndex(tmp_path / "m")
