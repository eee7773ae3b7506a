"""The command: one line for every error, nothing half-written whatever ends it, and no torch."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robustbert.data.corpus import IndexedCorpus
from robustbert.data.errors import DataError
from tests.data.conftest import make_text

_REPOSITORY = Path(__file__).resolve().parents[2]
TOOL = _REPOSITORY / "tools" / "preprocess"


def command(*arguments):
    return [sys.executable, str(TOOL), *map(str, arguments)]


def run(*arguments, cwd):
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(make_text(100))
    return path


def test_help_shows_an_example(tmp_path):
    result = run("--help", cwd=tmp_path)
    assert result.returncode == 0 and "examples:" in result.stdout


def test_one_command_trains_a_tokenizer_and_writes_a_corpus(text_file, tmp_path):
    arguments = ["--input", text_file, "--tokenizer", "tok", "--train-tokenizer", 300, "--output", "out/books.v1"]
    result = run(*arguments, "--sequence-length", 32, 64, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "100 documents" in result.stdout and "MB/s" in result.stdout
    corpus = IndexedCorpus(tmp_path / "out" / "books.v1")
    assert corpus.num_documents == 100
    assert (corpus.tokenizer_dir / "vocab.json").is_file()
    assert (tmp_path / "out" / "books.v1.full-sentences-64.npy").is_file()
    again = run("--input", text_file, "--tokenizer", "tok", "--output", "out/books.v1", cwd=tmp_path)
    assert again.returncode == 0 and "already prepared, 100 documents" in again.stdout
    (tmp_path / "other.txt").write_text(make_text(10))
    other = ["--input", "other.txt", "--tokenizer", "tok", "--output", "out/books.v1"]
    refused = run(*other, cwd=tmp_path)
    assert refused.returncode == 2 and "pass --overwrite" in refused.stderr
    assert IndexedCorpus(tmp_path / "out" / "books.v1").num_documents == 100
    replaced = run(*other, "--overwrite", cwd=tmp_path)
    assert replaced.returncode == 0, replaced.stderr
    assert IndexedCorpus(tmp_path / "out" / "books.v1").num_documents == 10


def test_blocks_of_every_format_are_built_beside_the_data(text_file, tmp_path):
    arguments = ["--input", text_file, "--tokenizer", "tok", "--train-tokenizer", 110, "--tokenizer-kind", "wordpiece"]
    formats = ["full-sentences", "doc-sentences", "segment-pair", "sentence-pair"]
    result = run(*arguments, "--output", "c", "--sequence-length", 32, 64, "--format", *formats, "--workers", 2, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(" blocks ") == 8 and (tmp_path / "tok" / "vocab.txt").is_file()
    assert {path.name for path in tmp_path.glob("c.*.npy")} == {
        "c.counts.npy",
        *(f"c.{name}-{length}.npy" for name in formats for length in (32, 64)),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--input": "nowhere.txt"}, "nowhere.txt: no such file"),
        ({"--tokenizer": "nowhere"}, "nowhere: no such folder"),
        ({"--input": "bad.txt"}, "bad.txt: line 1 (byte 0) is not UTF-8"),
        ({"--output": "text.txt/out"}, "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(text_file, tokenizer_dir, tmp_path, change, message):
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    options = {"--input": text_file, "--tokenizer": tokenizer_dir, "--output": "out/corpus"} | change
    result = run(*(item for option in options.items() for item in option), cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("out/corpus.*n"))  # neither .bin nor .json


def start_endless(tmp_path, tokenizer_dir, num_workers):
    """Start the command on a pipe that does not end, and wait until it has written something and noted it in its journal."""
    os.mkfifo(tmp_path / "pipe")
    keep_open = os.open(tmp_path / "pipe", os.O_RDWR)
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "from pathlib import Path\n"
        "from robustbert.data.preparation import indexing, preprocess\n"
        "from robustbert.data.text import readers\n"
        "indexing._CHUNK_CHARS, indexing._MIN_BYTES_PER_WORKER = 1000, 1\n"
        "source = readers.TextSource('pipe', 'plain', (Path('pipe'),))\n"
        "preprocess.find_source = lambda *_: source\n"
        "readers.TextSource.num_bytes = 100\n"
        "if __name__ == '__main__': sys.exit(preprocess.main())\n"
    )
    (tmp_path / "endless.py").write_text(program)
    arguments = ["--input", "pipe", "--tokenizer", tokenizer_dir, "--output", "corpus", "--workers", num_workers]
    process = subprocess.Popen(
        [sys.executable, "endless.py", str(_REPOSITORY), *map(str, arguments)],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    text, partial, deadline = make_text(60).encode(), tmp_path / "corpus.bin.partial", time.monotonic() + 60
    journal = tmp_path / "corpus.journal"
    while not (partial.exists() and partial.stat().st_size and len(journal.read_bytes().splitlines()) > 1):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        os.write(keep_open, text[:4000])
        time.sleep(0.02)
    return process, keep_open


@pytest.mark.parametrize("num_workers", [1, 2])
def test_killed_preparation_leaves_nothing_that_looks_whole(tokenizer_dir, tmp_path, num_workers):
    process, pipe = start_endless(tmp_path, tokenizer_dir, num_workers)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    os.close(pipe)
    assert not any((tmp_path / f"corpus.{ending}").exists() for ending in ("bin", "idx", "json", "counts.npy"))
    with pytest.raises(DataError, match="its preparation did not finish"):
        IndexedCorpus(tmp_path / "corpus")
    deadline = time.monotonic() + 30
    while any(_is_running(child) for child in children):  # no orphan stays
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (tmp_path / "text.txt").write_text(make_text(20))
    arguments = ["--input", "text.txt", "--tokenizer", tokenizer_dir, "--output", "corpus"]
    refused = run(*arguments, cwd=tmp_path)
    assert refused.returncode == 2 and "an interrupted preparation of another source" in refused.stderr
    again = run(*arguments, "--overwrite", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert not list(tmp_path.glob("*.partial")) and not (tmp_path / "corpus.journal").exists()


def test_ctrl_c_says_how_to_go_on(tokenizer_dir, tmp_path):
    process, pipe = start_endless(tmp_path, tokenizer_dir, num_workers=1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    os.close(pipe)
    assert (process.returncode, stderr) == (130, "preprocess: interrupted; the same command goes on from there\n")
    assert (tmp_path / "corpus.journal").exists() and not (tmp_path / "corpus.json").exists()


def test_preparing_data_imports_neither_torch_nor_megatron():
    program = "import sys, robustbert.data.prepare, robustbert.data.preparation.preprocess; print({'torch', 'megatron'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], cwd=_REPOSITORY, capture_output=True, text=True, timeout=60)
    assert result.stdout == "set()\n", result.stderr


def _is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
