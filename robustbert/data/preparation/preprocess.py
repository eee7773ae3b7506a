"""The command line of tools/preprocess: raw text to an indexed corpus."""

import argparse
import datetime
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from robustbert.data.blocks.packing import FORMATS, NUM_FRAME_TOKENS, open_packing
from robustbert.data.corpus import IndexedCorpus, Manifest, corpus_file, read_manifest, refuse_files_of_others
from robustbert.data.errors import DataError
from robustbert.data.preparation.duplicates import KINDS
from robustbert.data.preparation.indexing import corpus_source, is_prepared, prepare_corpus, refuse_existing
from robustbert.data.preparation.not_taken import incomplete_summary, summary_of
from robustbert.data.preparation.text_workers import guard_worker, leave_pool
from robustbert.data.shards import shard_prefix
from robustbert.data.text.corpora.stories import read_questions
from robustbert.data.text.corpora.plain import LAYOUTS
from robustbert.data.text.readers import AUTO, READERS, TEXT_FIELD_READERS, TextSource, find_source, read_pieces, take_shard
from robustbert.data.text.records import ReaderOptions
from robustbert.data.text.sentences import split_sentences
from robustbert.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from robustbert.interruption import ends_by_signals

_EXAMPLE = """examples:
  tools/preprocess --input books.txt.gz 'news/*.jsonl' --tokenizer roberta/ --output data/books --workers 8 --sequence-length 512
  tools/preprocess --input 'oscar/*.jsonl.zst' --text-field content --tokenizer roberta/ --output data/oscar
  tools/preprocess --input cc100.en.txt.xz --documents blank-line --tokenizer roberta/ --output data/cc100
  tools/preprocess --reader wikipedia --input enwiki-latest-pages-articles.xml.bz2 --tokenizer roberta/ --output data/wiki
  tools/preprocess --reader cc-news --input 'crawl/CC-NEWS-*.warc.gz' --from 2016-09-01 --to 2019-02-28 --deduplicate \\
                   --on-bad-input skip --tokenizer roberta/ --output data/cc-news --shard 3/64
  tools/preprocess --reader stories --input 'crawl/*.warc.wet.gz' --queries wsc/train.jsonl --share 0.001 --tokenizer roberta/ \\
                   --output data/stories
  sbatch --array=0-63 --cpus-per-task=16 --wrap 'tools/preprocess --shard auto --reader openwebtext --input openwebtext.tar.xz \\
                   --tokenizer roberta/ --output data/openwebtext'
  mpirun -n 64 tools/preprocess --shard auto --workers 1 --input 'text/*.jsonl.zst' --tokenizer roberta/ --output data/text

writes data/books.bin, .idx, .json, .tokenizer/ and the blocks, which data.train takes as `- path: data/books`; with --shard
data/cc-news-00003-of-00064.*, one part, and all parts together are `- path: data/cc-news-*`. Killed at any moment, the
same command goes on where it was.

readers: plain text, jsonl, json (an array, or objects over several lines), csv, tsv, parquet, arrow (a data set that
`datasets` saved), wikipedia (XML dump),
wikiextractor (its output), books (one file a book), cc-news (WARC), openwebtext (its .tar or .tar.xz), stories (WARC, WET,
.jsonl or text). Without --reader the content of each file tells whether it is one of the first nine, whatever its ending;
what is none of them is refused. Files may be compressed: gzip, bzip2, xz, zstd. With a reader that has endings of its own
--input may name a folder.
"""
_LOG_INTERVAL_S = 10.0


def main(arguments: list[str] | None = None, find_shard: Callable[[], tuple[int, int]] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 2 for bad input (one line on standard error). Ctrl-C ends it with 130, SIGTERM with 143.

    find_shard: which part of how many --shard auto is; ValueError where that is not known.
    """
    options = _parser().parse_args(arguments)

    def last_words() -> str:
        begun = corpus_file(options.output, "journal").exists()
        return f"interrupted; {'the same command goes on from there' if begun else 'nothing was written'}"

    with ends_by_signals("preprocess", last_words):
        try:
            if options.shard is not None:
                options.shard = _auto_shard(find_shard) if options.shard == "auto" else options.shard
                options.output = shard_prefix(options.output, *options.shard)
            _preprocess(options)
        except (DataError, OSError) as error:
            print(f"preprocess: error: {error}", file=sys.stderr)
            return 2
    return 0


def _auto_shard(find_shard: Callable[[], tuple[int, int]] | None) -> tuple[int, int]:
    if find_shard is None:
        raise DataError("--shard auto is for the command line; say --shard I/N")
    try:
        return find_shard()
    except ValueError as error:
        raise DataError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/preprocess",
        description="Turn raw text into indexed tokens that data.train and data.valid read.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--input", nargs="+", required=True, metavar="FILE", help="files, globs, folders, or python:stdlib")
    add("--tokenizer", required=True, metavar="DIR", help="the tokenizer's folder (with --train-tokenizer: made)")
    add("--output", required=True, metavar="PREFIX", help="of the .bin, .idx and .json to be written")
    add("--workers", type=_positive, default=len(os.sched_getaffinity(0)), metavar="N", help="processes (one a core)")
    add(
        "--reader",
        choices=(AUTO, *READERS),
        default=AUTO,
        metavar="READER",
        help=f"{', '.join(READERS)}; auto (the default): each file's content tells",
    )
    add(
        "--documents",
        choices=(AUTO, *LAYOUTS),
        default=AUTO,
        metavar="LAYOUT",
        help="what parts documents in plain text: two-blank-lines, blank-line (BERT, fairseq, CC-100), line (one document a "
        "line), wikitext (titles); auto (the default): found, two-blank-lines where that is not certain",
    )
    add("--text-field", metavar="NAME", help="of JSON, tables and Parquet: the field with the text (text); a.b: b inside a")
    add(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="only part I (0 to N - 1) of N, as PREFIX-0000I-of-0000N; auto: the part of this task of the cluster's job",
    )
    add("--on-bad-input", choices=("stop", "skip"), default="stop", help="what cannot be read ends the command, or is counted")
    add(
        "--deduplicate",
        nargs="?",
        const="near",
        choices=KINDS,
        help="leave out documents that came before in this shard: nearly so (MinHash; the default), or exactly so",
    )
    add("--sequence-length", type=_sequence_length, nargs="+", default=[], metavar="N", help="build the blocks of these too")
    add(
        "--format",
        nargs="+",
        choices=FORMATS,
        default=[FORMATS[0]],
        metavar="FORMAT",
        help=f"of --sequence-length: {', '.join(FORMATS)} (the first); a run builds what is not there",
    )
    add("--overwrite", action="store_true", help="replace an output that exists")
    trained = parser.add_argument_group("a tokenizer of the input's own")
    trained.add_argument("--train-tokenizer", type=_vocab_size, metavar="VOCAB_SIZE", help="train it on the input, in DIR, first")
    trained.add_argument("--tokenizer-kind", choices=("byte-bpe", "wordpiece"), default="byte-bpe", help="its kind (byte-bpe)")
    trained.add_argument("--cased", action="store_true", help="of a wordpiece: keep case and accents")
    news = parser.add_argument_group("of the reader cc-news")
    news.add_argument("--from", type=_date, dest="first_date", metavar="DATE", help="the first day of the crawl: 2016-09-01")
    news.add_argument("--to", type=_date, dest="last_date", metavar="DATE", help="its last day")
    similar = parser.add_argument_group("of the reader stories")
    similar.add_argument("--queries", metavar="FILE", help="questions of a commonsense task: .jsonl, or text, one a line")
    similar.add_argument(
        "--share", type=_share, help="the share of most similar documents to keep (two passes); its authors': 0.001"
    )
    similar.add_argument("--threshold", type=_share, help="keep documents from this similarity on (one pass)")
    return parser


def _preprocess(options: argparse.Namespace) -> None:
    sources = _sources(options)
    for line in [line for source in sources for line in source.in_words()]:
        print(line)
    source = corpus_source(sources, 0.0, held_out=False, deduplicate=options.deduplicate)
    if options.train_tokenizer is None:
        tokenizer = load_tokenizer(options.tokenizer)
        if is_prepared(options.output, source, tokenizer):
            manifest = read_manifest(options.output)
            _build_blocks(options, tokenizer)
            print(f"{options.output}: already prepared, {_counts(manifest)}{_not_taken(manifest)}")
            return
    refuse_files_of_others(options.output)  # before a tokenizer is trained
    if not options.overwrite:
        refuse_existing(options.output)
    goes_on = corpus_file(options.output, "journal").exists()
    started = time.monotonic()
    with _ProgressDisplay() as display:
        if options.train_tokenizer is not None:
            tokenizer = _trained_tokenizer(options, sources, display)
        (manifest,) = prepare_corpus(
            sources,
            tokenizer,
            corpus_file(options.output, "tokenizer"),  # the data keep their tokenizer wherever they are copied
            options.output,
            options.workers,
            overwrite=options.overwrite,
            progress=display,
            on_bad_input=options.on_bad_input,
            deduplicate=options.deduplicate,
            report=lambda line: print(f"preprocess: {line}", file=sys.stderr),
        )
    seconds = time.monotonic() - started
    _build_blocks(options, tokenizer)
    megabytes = manifest.num_characters / 1e6
    pace = ", an interrupted run's among them" if goes_on else f" in {seconds:.1f} s ({megabytes / seconds:.2f} MB/s)"
    print(f"{options.output}: {_counts(manifest)} from {megabytes:.1f} million characters{pace}{_not_taken(manifest)}")


def _sources(options: argparse.Namespace) -> list[TextSource]:
    """What the command line names, or this shard's part of it; DataError for options that do not go together."""
    if options.reader != "cc-news" and (options.first_date or options.last_date):
        raise DataError("--from and --to choose by the date of a crawl: they go with --reader cc-news")
    if options.reader != "stories" and (options.queries or options.share is not None or options.threshold is not None):
        raise DataError("--queries, --share and --threshold choose by similarity: they go with --reader stories")
    if options.reader == "stories" and (options.share is None) == (options.threshold is None):
        raise DataError("--reader stories needs either --share (of the documents, two passes) or --threshold (one pass)")
    if options.reader == "stories" and options.queries:
        read_questions(options.queries)
    if options.train_tokenizer is not None and (options.shard is not None or options.reader == "stories"):
        raise DataError(
            "--train-tokenizer trains on all of the input as it is; train it in a command without --shard and --reader stories, "
            "and name its folder here"
        )
    if options.documents != AUTO and options.reader not in (AUTO, "plain"):
        raise DataError("--documents says what parts documents in plain text: it goes with --reader plain, or auto")
    if options.text_field is not None and options.reader not in (AUTO, *TEXT_FIELD_READERS):
        raise DataError(f"--text-field goes with --reader {', '.join(TEXT_FIELD_READERS)}, or auto")
    chosen = ReaderOptions(
        options.first_date,
        options.last_date,
        options.queries,
        options.share,
        options.threshold,
        None if options.documents == AUTO else options.documents,
        options.text_field,
    )
    skips = options.on_bad_input == "skip"
    sources = [find_source(text, options.reader, chosen, skips) for text in options.input]
    return sources if options.shard is None else take_shard(sources, *options.shard)


def _build_blocks(options: argparse.Namespace, tokenizer: Tokenizer) -> None:
    """The blocks of every format and length, as many at a time as there are workers."""
    wanted = [(packing_format, length) for packing_format in options.format for length in options.sequence_length]
    if len(wanted) == 1 or options.workers == 1:
        counts = [_num_blocks(options.output, tokenizer, *form) for form in wanted]
    else:
        workers = min(options.workers, len(wanted) or 1)
        with leave_pool(ProcessPoolExecutor(workers, get_context("spawn"), guard_worker, (os.getpid(),))) as pool:
            futures = [pool.submit(_num_blocks, options.output, tokenizer, *form) for form in wanted]
            counts = [future.result() for future in futures]
    for (packing_format, length), count in zip(wanted, counts):
        print(f"{options.output}: {count} blocks {packing_format} of {length} tokens")


def _num_blocks(prefix: str, tokenizer: Tokenizer, packing_format: str, length: int) -> int:
    return len(open_packing(IndexedCorpus(prefix), packing_format, length, tokenizer))


def _counts(manifest: Manifest) -> str:
    return f"{manifest.num_documents} documents, {manifest.num_sentences} sentences, {manifest.num_tokens} tokens"


def _not_taken(manifest: Manifest) -> str:
    summary, incomplete = summary_of(manifest.not_taken), incomplete_summary(manifest.not_taken, manifest.num_sentences)
    return (f"; not taken: {summary}" if summary else "") + (f"; {incomplete}" if incomplete else "")


def _trained_tokenizer(options: argparse.Namespace, sources: list[TextSource], display: "_ProgressDisplay") -> Tokenizer:
    """A tokenizer of the input, in its folder; one that an interrupted run trained on the same is kept."""
    folder = Path(options.tokenizer)
    record_file = folder.with_name(f"{folder.name}.training.json")
    kind = {"kind": options.tokenizer_kind, "lowercase": None if options.tokenizer_kind == "byte-bpe" else not options.cased}
    record = {"vocab_size": options.train_tokenizer, **kind, "source": corpus_source(sources, 0.0, held_out=False)}
    if folder.exists() and any(folder.iterdir()):
        tokenizer = load_tokenizer(folder) if record_file.is_file() else None
        if tokenizer is not None and _read_json(record_file) == record | {"sha256": tokenizer.sha256}:
            return tokenizer
        if not record_file.is_file():
            raise DataError(f"{folder}: holds files that --train-tokenizer did not make, and is not replaced; choose another folder")
        if not options.overwrite:
            raise DataError(
                f"{folder}: exists already; pass --overwrite to train a new tokenizer there, or choose another folder"
            )
    done, total = 0, sum(source.num_bytes for source in sources)

    def advance(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        display("tokenizer", done, total)

    skips = options.on_bad_input == "skip"
    pieces = (piece for source in sources for piece in read_pieces(source, advance=advance, skip_bad_input=skips))
    sentences = (sentence for piece in pieces for sentence in split_sentences(piece.text))
    tokenizer = train_tokenizer(sentences, options.train_tokenizer, **kind)
    record_file.parent.mkdir(parents=True, exist_ok=True)
    record_file.write_text(json.dumps(record | {"sha256": tokenizer.sha256}, indent=1) + "\n", encoding="utf-8")
    tokenizer.save(folder)  # last: a folder without its record would not be taken for this input's
    return tokenizer


def _read_json(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


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


def _positive(text: str) -> int:
    return _at_least(text, 1)


def _vocab_size(text: str) -> int:
    return _at_least(text, 100)  # what a kind needs more, its trainer says


def _sequence_length(text: str) -> int:
    return _at_least(text, NUM_FRAME_TOKENS + 1)


def _at_least(text: str, least: int) -> int:
    if not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number from {least} on, it is {text!r}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must lie above 0 and at most at 1, it is {text!r}")
    return value


def _date(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a date like 2016-09-01, it is {text!r}") from None


def _shard(text: str) -> tuple[int, int] | str:
    if text == "auto":
        return text
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 0 to N - 1, for instance 0/4, or auto, it is {text!r}")
    return int(index), int(count)
