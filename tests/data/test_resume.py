"""A preparation that is killed, wherever that happens, goes on to the bytes of one that was not."""

import gzip
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robustbert.data.preparation import corpus_writer, indexing, journal
from robustbert.data.preparation.indexing import prepare_corpus
from robustbert.data.text.readers import find_source
from tests.data.conftest import make_text
from tests.data.test_preprocess import command

_ENDINGS = ("bin", "idx", "counts.npy", "json")
# What a preparation does on its way to the disk: it is killed before each of these, in turn.
_STEPS = (
    (os, "fsync"),
    (os, "replace"),
    (Path, "unlink"),
    (corpus_writer.CorpusWriter, "add_sentences"),
    (corpus_writer.CorpusWriter, "complete"),
    (journal.Journal, "append"),
    (indexing, "publish"),
)


def text_with_faults(folder: Path) -> list:
    """Plain text with documents that come twice and a line that is not UTF-8; JSON lines in gzip; a pattern of two forms."""
    documents = make_text(40, seed=3).rstrip("\n").split("\n\n\n")
    plain = "\n\n\n".join([*documents, *documents[5:15]]).encode() + b"\n\n\nbad \xff line\n\n\n" + make_text(9, seed=4).encode()
    (folder / "a.txt").write_bytes(plain)
    lines = "".join(f'{{"text": "Number {i} of the lines, and more of it."}}\n' for i in range(60)) + "{\n"
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    (folder / "mixed_0.txt").write_text("\n\n".join(f"Paragraph {i} of a single document." for i in range(30)))
    (folder / "mixed_1.csv").write_text("id,text\n" + "".join(f'{i},"Row {i}, of a table."\n' for i in range(30)))
    return [find_source(str(folder / name)) for name in ("a.txt", "b.jsonl.gz", "mixed_*")]


def prepare(folder: Path, sources, tokenizer, held_out: bool):
    target = (folder / "valid", 0.2) if held_out else (None, 0.0)
    return prepare_corpus(
        sources,
        tokenizer,
        folder / "tokenizer",
        folder / "corpus",
        1,
        *target,
        on_bad_input="skip",
        deduplicate=None if held_out else "near",
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of the corpora; nothing else may lie beside them."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert all(name.endswith(_ENDINGS) and "partial" not in name for name in files), sorted(files)
    return files


def kill_at(number: int, work) -> bool:
    """Run work() in a process of its own that is killed before its step `number`; whether it was (else it came to its end)."""
    child = os.fork()
    if child == 0:
        counter = itertools.count()
        for owner, name in _STEPS:
            setattr(owner, name, deadly(getattr(owner, name), counter, number))
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


# Of the places to be killed at, every third one is enough for every day; ROBUSTBERT_KILL_EVERYWHERE=1 takes them all.
STRIDE = 1 if os.environ.get("ROBUSTBERT_KILL_EVERYWHERE") else 3


def deadly(function, counter, number):
    def step(*arguments, **options):
        if next(counter) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    return step


@pytest.mark.slow
@pytest.mark.parametrize("held_out", [False, True], ids=["near-duplicates-removed", "held-out"])
def test_killed_before_any_step_it_resumes_to_the_same_bytes(held_out, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(indexing, "_JOURNAL_INTERVAL_S", 0.0)
    monkeypatch.setattr(indexing, "_CHUNK_CHARS", 8000)
    sources = text_with_faults(tmp_path)
    (tmp_path / "whole").mkdir()
    manifests = prepare(tmp_path / "whole", sources, tokenizer, held_out)
    expected = contents(tmp_path / "whole")
    assert manifests[0].remarks["count"] == 1  # of mixed_0.txt
    assert manifests[0].not_taken["bad_input"] == 2 and (held_out or manifests[0].not_taken["duplicates, exact"] >= 10)
    num_kills = 0
    for number in itertools.count(step=STRIDE):
        folder = tmp_path / f"killed-{number}"
        folder.mkdir()
        was_killed = kill_at(number, lambda: prepare(folder, sources, tokenizer, held_out))
        num_kills += was_killed
        if was_killed:
            kill_at(number // 2, lambda: prepare(folder, sources, tokenizer, held_out))  # and once more
            if not (folder / "corpus.json").exists() or (folder / "corpus.journal").exists():
                prepare(folder, sources, tokenizer, held_out)
        assert contents(folder) == expected, number
        if not was_killed:
            break
    print(f"killed {num_kills} times")
    assert num_kills > 60 / STRIDE


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_command_killed_at_random_moments_resumes_to_the_same_bytes(num_workers, tokenizer_dir, tmp_path):
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "from robustbert.data.preparation import indexing, preprocess\n"
        "indexing._JOURNAL_INTERVAL_S, indexing._CHUNK_CHARS, indexing._MIN_BYTES_PER_WORKER = 0.02, 20_000, 1\n"
        "if __name__ == '__main__': sys.exit(preprocess.main())\n"
    )
    (tmp_path / "small_steps.py").write_text(program)
    (tmp_path / "text.txt").write_text(make_text(6000, seed=7))
    arguments = ["--input", "text.txt", "--tokenizer", tokenizer_dir, "--output", "out/corpus", "--workers", num_workers]
    root = Path(__file__).resolve().parents[2]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        (folder / "text.txt").symlink_to(tmp_path / "text.txt")
    started = time.monotonic()
    subprocess.run(command(*arguments), cwd=whole, check=True, capture_output=True, timeout=120)
    seconds = time.monotonic() - started
    rng, num_kills, states = random.Random(num_workers), 0, set()
    while True:
        process = subprocess.Popen(
            [sys.executable, str(tmp_path / "small_steps.py"), str(root), *map(str, arguments)], cwd=killed, stderr=subprocess.PIPE
        )
        try:
            process.wait(timeout=rng.uniform(0.2, max(0.5, seconds * 0.6)) if num_kills < 12 else 120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            num_kills += 1
            states.add(journal_lines(killed / "out" / "corpus.journal"))
            continue
        assert process.returncode == 0, process.stderr.read()
        break
    print(f"killed {num_kills} times, at {len(states)} different states")
    assert num_kills >= 3
    for ending in _ENDINGS:
        assert (killed / "out" / f"corpus.{ending}").read_bytes() == (whole / "out" / f"corpus.{ending}").read_bytes(), ending


def journal_lines(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0
