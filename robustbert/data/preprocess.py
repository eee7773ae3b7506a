"""The command line of tools/preprocess: raw text to an indexed corpus."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from robustbert.data.corpus import IndexedCorpus, corpus_file
from robustbert.data.errors import DataError
from robustbert.data.indexing import prepare_corpus
from robustbert.data.packing import NUM_FRAME_TOKENS, open_packing
from robustbert.data.readers import READERS, TextSource, find_source, read_pieces
from robustbert.data.sentences import split_sentences
from robustbert.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

_EXAMPLE = """example:
  tools/preprocess --input books.txt.gz 'news/*.jsonl' --tokenizer roberta/ --output data/books --workers 8 --sequence-length 512

writes data/books.bin, .idx, .json, .tokenizer/ and the blocks, which data.train takes as `- path: data/books`.
"""
_LOG_INTERVAL_S = 10.0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 2 for bad input (one line on standard error), 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: _interrupt())  # a scheduler's signal: end as Ctrl-C does
    try:
        _preprocess(options)
    except (DataError, OSError) as error:
        print(f"preprocess: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("preprocess: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/preprocess",
        description="Turn raw text into indexed tokens that data.train and data.valid read.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--input", nargs="+", required=True, metavar="FILE", help="files, globs, or python:stdlib")
    parser.add_argument(
        "--tokenizer", required=True, metavar="DIR", help="the tokenizer's folder (with --train-tokenizer: made)"
    )
    parser.add_argument("--output", required=True, metavar="PREFIX", help="of the .bin, .idx and .json to be written")
    parser.add_argument(
        "--workers", type=_positive, default=len(os.sched_getaffinity(0)), metavar="N", help="processes (one a core)"
    )
    parser.add_argument("--reader", choices=READERS, help="by default chosen by the file's ending")
    parser.add_argument(
        "--train-tokenizer",
        type=_vocab_size,
        metavar="VOCAB_SIZE",
        help="train a tokenizer on the input and save it in DIR first",
    )
    parser.add_argument(
        "--sequence-length",
        type=_sequence_length,
        nargs="+",
        default=[],
        metavar="N",
        help="build the blocks of these lengths too",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    return parser


def _preprocess(options: argparse.Namespace) -> None:
    sources = [find_source(text, options.reader) for text in options.input]
    existing = [path for path in (corpus_file(options.output, e) for e in ("json", "bin", "idx")) if path.exists()]
    if existing and not options.overwrite:  # before a tokenizer is trained
        raise DataError(f"{existing[0]}: exists already; pass --overwrite to replace it, or choose another output")
    started = time.monotonic()
    with _ProgressDisplay() as display:
        tokenizer = _tokenizer(options, sources, display)
        tokenizer_dir = corpus_file(options.output, "tokenizer")  # the data keep their tokenizer wherever they are copied
        tokenizer.save(tokenizer_dir)
        (manifest,) = prepare_corpus(
            sources, tokenizer, tokenizer_dir, options.output, options.workers, overwrite=options.overwrite, progress=display
        )
    seconds = time.monotonic() - started
    for length in options.sequence_length:
        packed = open_packing(IndexedCorpus(options.output), "full-sentences", length, tokenizer)
        print(f"{options.output}: {len(packed)} blocks of {length} tokens")
    megabytes = manifest.num_characters / 1e6
    print(
        f"{options.output}: {manifest.num_documents} documents, {manifest.num_sentences} sentences, {manifest.num_tokens} tokens "
        f"from {megabytes:.1f} million characters in {seconds:.1f} s ({megabytes / seconds:.2f} MB/s)"
    )


def _tokenizer(options: argparse.Namespace, sources: list[TextSource], display: "_ProgressDisplay") -> Tokenizer:
    if options.train_tokenizer is None:
        return load_tokenizer(options.tokenizer)
    folder = Path(options.tokenizer)
    if folder.exists() and any(folder.iterdir()) and not options.overwrite:
        raise DataError(f"{folder}: exists already; pass --overwrite to train a new tokenizer there, or choose another folder")
    done, total = 0, sum(source.num_bytes for source in sources)

    def advance(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        display("tokenizer", done, total)

    pieces = (piece for source in sources for piece in read_pieces(source, advance=advance))
    tokenizer = train_tokenizer((s for piece in pieces for s in split_sentences(piece.text)), options.train_tokenizer)
    tokenizer.save(folder)
    return tokenizer


class _ProgressDisplay:
    """A progress callback: a bar where standard error is a terminal, a line every _LOG_INTERVAL_S seconds elsewhere."""

    def __init__(self):
        self._bar = None
        self._tasks: dict[str, int] = {}
        self._logged = time.monotonic()

    def __enter__(self) -> "_ProgressDisplay":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

            columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
            self._bar = Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True))
            self._bar.start()
        return self

    def __exit__(self, *_exception) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, name: str, done: int, total: int) -> None:
        if self._bar is not None:
            if name not in self._tasks:
                self._tasks[name] = self._bar.add_task(name, total=total)
            self._bar.update(self._tasks[name], completed=min(done, total))
        elif time.monotonic() - self._logged >= _LOG_INTERVAL_S:
            self._logged = time.monotonic()
            print(f"{name}: {done / 1e6:.1f} of {total / 1e6:.1f} MB read", file=sys.stderr, flush=True)


def _interrupt():
    raise KeyboardInterrupt


def _positive(text: str) -> int:
    return _at_least(text, 1)


def _vocab_size(text: str) -> int:
    return _at_least(text, 261)  # 256 bytes and 5 specials


def _sequence_length(text: str) -> int:
    return _at_least(text, NUM_FRAME_TOKENS + 1)


def _at_least(text: str, least: int) -> int:
    if not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number from {least} on, it is {text!r}")
    return int(text)
