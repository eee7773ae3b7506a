"""A run's data, from its configuration: what is prepared, where it lies, and whether it is all there.

Imports no torch: the launcher prepares the data before it starts the processes. Files in the run's data folder:
tokenizer/ and tokenizer.json (what it was made of), train_0000.* for the first corpus of data.train that is raw text, and
valid_0000.* for the first of data.valid, or for what data.valid_fraction holds out of train_0000.
"""

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from robustbert.config.sections import CorpusConfig, DataConfig, TokenizerSource
from robustbert.data.blocks.packing import open_packing, stored_blocks
from robustbert.data.corpus import IndexedCorpus, corpus_file, has_manifest, read_manifest
from robustbert.data.errors import DataError
from robustbert.data.foreign.corpus import prepare_foreign
from robustbert.data.open_corpus import Corpus, check_corpus, corpus_identity, is_foreign, open_corpus
from robustbert.data.origin import check_text, difference
from robustbert.data.preparation.indexing import Progress, corpus_source, marked_pieces, prepare_corpus
from robustbert.data.sampler import check_weights
from robustbert.data.shards import find_prefixes
from robustbert.data.text.readers import TextSource, find_source
from robustbert.data.text.records import ReaderOptions
from robustbert.data.text.sentences import split_sentences
from robustbert.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

_MIN_TOKENS_FOR_PROCESSES = 200_000_000  # below, one process has built the blocks before others have started
_TOKENIZER_TEXT_CHARS = 1 << 30  # a tokenizer is trained on the first so many characters of each source


@dataclass(frozen=True)
class PreparedCorpus:
    """An indexed corpus of a run; weight as in the configuration, name as the user gave its text or path there.

    prefix: of its files, or where it was prepared in parts a pattern that they match. split: which one of a folder's.
    index_dir: where the side files of foreign data lie (foreign/side_files.py); None where it is not to be foreign.
    """

    prefix: Path
    weight: float | None = None
    name: str = ""
    split: str = "train"
    index_dir: Path | None = None

    @property
    def prefixes(self) -> list[Path]:
        """The prefixes of its parts, in order. DataError: see find_prefixes."""
        return find_prefixes(str(self.prefix), self.split)

    def open_parts(self, tokenizer: Tokenizer) -> list[Corpus]:
        """Its parts, opened for reading, with the run's tokenizer. DataError: one of ours has another tokenizer's ids."""
        return [open_corpus(prefix, self.index_dir, tokenizer) for prefix in self.prefixes]

    @property
    def foreign_prefixes(self) -> list[Path]:
        """Those of its prefixes whose data are not of tools/preprocess."""
        return [] if self.index_dir is None else list(filter(is_foreign, self.prefixes))

    def content(self) -> str:
        """A hash of its token ids and their order, in hexadecimal, wherever the files lie. DataError: they cannot be read."""
        identities = " ".join(map(corpus_identity, self.prefixes))
        return hashlib.sha256(identities.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class PreparedData:
    """Where a run's prepared data lie."""

    tokenizer_dir: Path
    vocab_size: int
    train: tuple[PreparedCorpus, ...]
    valid: tuple[PreparedCorpus, ...]

    def contents(self) -> dict[str, list[str]]:
        """The hash of each corpus, in the order in which they are numbered: what a checkpoint records as its data."""
        return {kind: [corpus.content() for corpus in getattr(self, kind)] for kind in ("train", "valid")}


def text_source(corpus: CorpusConfig) -> TextSource:
    """The files of a corpus that is raw text, each with its reader. DataError: see find_source."""
    documents = None if corpus.documents == "auto" else corpus.documents
    return find_source(corpus.text, corpus.reader, ReaderOptions(documents=documents, text_field=corpus.text_field))


def check_sources(data_config: DataConfig) -> None:
    """Check that everything data.* names is there and fits, before anything is created. Takes well under a second.

    DataError: a file, folder or corpus is missing or damaged, weights for some corpora only, a corpus whose tokenizer is
    not the run's.
    """
    check_weights([corpus.weight for corpus in data_config.train])
    tokenizer = None if isinstance(data_config.tokenizer, TokenizerSource) else load_tokenizer(data_config.tokenizer)
    corpora = [("train", corpus) for corpus in data_config.train] + [("valid", corpus) for corpus in data_config.valid]
    for split, corpus in corpora:
        if corpus.text is None:
            for prefix in find_prefixes(corpus.path, split):
                check_corpus(prefix, tokenizer, _tokenizer_name(data_config))
            continue
        for path in text_source(corpus).files:
            if not os.access(path, os.R_OK):
                raise DataError(f"{path}: no permission to read it; change its mode or take another file")


def prepare_run(
    data_config: DataConfig,
    data_dir: str | Path,
    progress: Progress | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> PreparedData:
    """Prepare everything a run reads: tokenizer, corpora, blocks. What is whole and made of the same is kept.

    May be called again after an interruption, or for a run that has all of it. progress: see indexing.Progress. report gets
    lines on what the files were taken for.
    DataError: see check_sources; text that cannot be read; a data_dir that cannot be written.
    """
    check_sources(data_config)
    data_dir = Path(data_dir)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        tokenizer = _prepare_tokenizer(data_config, data_dir, progress)
    except OSError as error:
        raise DataError(f"{data_dir}: cannot be written ({error}); choose another run.dir") from None
    for i, corpus in enumerate(data_config.train):
        _prepare_text(corpus, tokenizer, data_config, data_dir, "train", i, progress, report)
    for i, corpus in enumerate(data_config.valid):
        _prepare_text(corpus, tokenizer, data_config, data_dir, "valid", i, progress, report)
    for place in _places(data_config, data_dir):
        for prefix in place.prepared.foreign_prefixes:
            prepare_foreign(prefix, place.prepared.index_dir, tokenizer, _tokenizer_name(data_config), progress)
    prepared = prepared_data(data_config, data_dir)
    parts = [part for corpus in (*prepared.train, *prepared.valid) for part in corpus.open_parts(tokenizer)]
    _build_blocks(parts, data_config, tokenizer)
    return prepared


def prepared_data(data_config: DataConfig, data_dir: str | Path) -> PreparedData:
    """Where prepare_run put a run's data; writes nothing.

    DataError: something is missing, damaged, or does not fit; OtherData: it was made of another text than data.train names.
    """
    tokenizer_dir = Path(data_dir) / "tokenizer"
    tokenizer = load_tokenizer(tokenizer_dir)
    places = _places(data_config, Path(data_dir))
    for place in places:
        for prefix in place.prepared.prefixes:
            open_corpus(prefix, place.prepared.index_dir, tokenizer)
        place.check()
    train, valid = (tuple(place.prepared for place in places if place.kind == kind) for kind in ("train", "valid"))
    return PreparedData(tokenizer_dir, tokenizer.vocab_size, train, valid)


def contents_now(data_config: DataConfig, data_dir: str | Path) -> dict[str, list[str | None]]:
    """PreparedData.contents of what lies there; None in the place of a corpus that is not there or was made of another text."""
    contents = {"train": [], "valid": []}
    for place in _places(data_config, Path(data_dir)):
        try:
            place.check()
            content = place.prepared.content()
        except DataError:
            content = None
        contents[place.kind].append(content)
    return contents


def changed_sources(data_config: DataConfig, data_dir: str | Path, by_time: bool = True) -> dict[str, str]:
    """Texts that are not what they were when the run's data was made of them: their name -> what is different.

    A text that is gone is none of them: the run does not need it any more. by_time: see difference.
    """
    changed = {}
    for place in _places(data_config, Path(data_dir)):
        if place.entry.text is None:
            continue
        try:
            place.check()
            now = text_source(place.entry).identity()
            words = difference(read_manifest(place.prepared.prefix).source, now, by_time)
        except (DataError, OSError):
            continue
        if words:
            changed[place.entry.text] = words
    return changed


@dataclass(frozen=True)
class _Place:
    """Where one corpus of a run lies, or should lie, and the entry of the configuration that it belongs to."""

    kind: str  # train or valid: which list it is read in
    entry: CorpusConfig
    prepared: PreparedCorpus
    valid_fraction: float
    held_out: bool

    def check(self) -> None:
        """OtherData where it was made of something else than the entry says; DataError where it is not there."""
        check_text(self.entry, self.prepared.prefix, self.valid_fraction, self.held_out)


def _places(data_config: DataConfig, data_dir: Path) -> list[_Place]:
    """Every corpus that a run of this configuration reads, in order."""
    fraction, places = data_config.valid_fraction, []
    index_dir = Path(data_config.index_dir or data_dir)
    for i, c in enumerate(data_config.train):
        prepared = PreparedCorpus(_prefix(c, data_dir, "train", i), c.weight, c.source, "train", None if c.text else index_dir)
        places.append(_Place("train", c, prepared, fraction, held_out=False))
        if fraction and c.text:
            held_out = PreparedCorpus(data_dir / f"valid_{i:04d}", name=c.source)
            places.append(_Place("valid", c, held_out, fraction, held_out=True))
    for i, c in enumerate(data_config.valid):
        prepared = PreparedCorpus(_prefix(c, data_dir, "valid", i), None, c.source, "valid", None if c.text else index_dir)
        places.append(_Place("valid", c, prepared, 0.0, held_out=False))
    return places


def unigram_perplexity(prepared: PreparedData) -> float:
    """What guessing by token frequency alone scores on the held-out corpora: exp of the mean nats a token.

    The frequencies are those of the training corpora's tokens, plus one for every id of the vocabulary.
    DataError where there is no held-out corpus.
    """
    if not prepared.valid:
        raise DataError("no text is held out: give data.valid or data.valid_fraction")
    tokenizer = load_tokenizer(prepared.tokenizer_dir)
    seen = 1.0 + sum(part.token_counts() for corpus in prepared.train for part in corpus.open_parts(tokenizer))
    held_out = sum(part.token_counts() for corpus in prepared.valid for part in corpus.open_parts(tokenizer))
    nats = -(held_out * np.log(seen / seen.sum())).sum() / held_out.sum()
    return float(np.exp(nats))


def _build_blocks(parts: list[Corpus], data_config: DataConfig, tokenizer: Tokenizer) -> None:
    """The blocks of all parts that have none yet, large ones in several processes."""
    form = data_config.format, data_config.sequence_length
    missing = [part for part in parts if form not in stored_blocks(part)]
    num_workers = min(len(missing), data_config.prepare_workers or len(os.sched_getaffinity(0)))
    if num_workers > 1 and sum(part.num_tokens for part in missing) > _MIN_TOKENS_FOR_PROCESSES:
        with ProcessPoolExecutor(num_workers, get_context("spawn")) as pool:
            for done in [pool.submit(_open_blocks, part.prefix, part.side_prefix.parent, *form, tokenizer) for part in missing]:
                done.result()
    for part in parts:
        open_packing(part, *form, tokenizer)


def _open_blocks(prefix: Path, index_dir: Path, packing_format: str, sequence_length: int, tokenizer: Tokenizer) -> None:
    open_packing(open_corpus(prefix, index_dir, tokenizer), packing_format, sequence_length, tokenizer)


def _prefix(corpus: CorpusConfig, data_dir: Path, kind: str, number: int) -> Path:
    return Path(corpus.path) if corpus.path else data_dir / f"{kind}_{number:04d}"


def _prepare_text(
    corpus: CorpusConfig,
    tokenizer: Tokenizer,
    data_config: DataConfig,
    data_dir: Path,
    kind: str,
    number: int,
    progress: Progress | None,
    report: Callable[[str], None],
) -> None:
    if corpus.text is None:
        return
    sources = [text_source(corpus)]
    fraction = data_config.valid_fraction if kind == "train" else 0.0
    prefix = _prefix(corpus, data_dir, kind, number)
    held_out_prefix = data_dir / f"valid_{number:04d}" if fraction else None
    wanted = {prefix: corpus_source(sources, fraction, held_out=False)}
    if held_out_prefix:
        wanted[held_out_prefix] = corpus_source(sources, fraction, held_out=True)
    if all(_is_whole(p, source, tokenizer) for p, source in wanted.items()):
        return
    for path in wanted:
        _drop_without_manifest(path)
    for line in sources[0].in_words():
        report(line)
    prepare_corpus(
        sources,
        tokenizer,
        data_dir / "tokenizer",
        prefix,
        num_workers=data_config.prepare_workers or len(os.sched_getaffinity(0)),
        held_out_prefix=held_out_prefix,
        valid_fraction=fraction,
        overwrite=True,  # the run's own folder: what is there is incomplete or made of something else
        progress=progress,
        report=report,
    )


def _drop_without_manifest(prefix: Path) -> None:
    """Files of the run's own folder that lost their manifest, which is deleted first and written last, are in the way."""
    if not has_manifest(prefix) and not corpus_file(prefix, "json.partial").exists():
        for ending in ("bin", "idx", "counts.npy", "json"):
            corpus_file(prefix, ending).unlink(missing_ok=True)


def _is_whole(prefix: Path, source: dict, tokenizer: Tokenizer) -> bool:
    try:
        manifest = IndexedCorpus(prefix).manifest
    except DataError:
        return False
    return manifest.tokenizer_sha256 == tokenizer.sha256 and manifest.source == source


def _prepare_tokenizer(data_config: DataConfig, data_dir: Path, progress: Progress | None) -> Tokenizer:
    """The run's tokenizer, saved in data_dir/tokenizer; one that was trained on the same text before is kept."""
    folder, record_file = data_dir / "tokenizer", data_dir / "tokenizer.json"
    if not isinstance(data_config.tokenizer, TokenizerSource):
        tokenizer = load_tokenizer(data_config.tokenizer)
        if _saved_sha256(folder) != tokenizer.sha256:
            tokenizer.save(folder)
        return tokenizer
    sources = [text_source(corpus) for corpus in data_config.train if corpus.text]
    wanted, fraction = data_config.tokenizer.train, data_config.valid_fraction
    record = {**asdict(wanted), "source": corpus_source(sources, fraction, held_out=False)}
    saved = _saved_sha256(folder)
    if saved is not None and _read_record(record_file) == record | {"sha256": saved}:
        return load_tokenizer(folder)
    tokenizer = train_tokenizer(_training_sentences(sources, fraction, progress), **asdict(wanted))
    tokenizer.save(folder)
    record_file.write_text(json.dumps(record | {"sha256": tokenizer.sha256}, indent=1) + "\n", encoding="utf-8")
    return tokenizer


def _training_sentences(sources: list[TextSource], fraction: float, progress: Progress | None):
    """The sentences a tokenizer is trained on: those of the training side, up to _TOKENIZER_TEXT_CHARS of each source."""
    done, total = 0, sum(source.num_bytes for source in sources)

    def advance(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        if progress is not None:
            progress("tokenizer", done, total)

    for source in sources:
        num_chars = 0
        for piece, held_out in marked_pieces([source], fraction, advance):
            if not held_out:
                num_chars += len(piece.text)
                yield from split_sentences(piece.text)
            if num_chars > _TOKENIZER_TEXT_CHARS:
                break


def _saved_sha256(folder: Path) -> str | None:
    try:
        return load_tokenizer(folder).sha256
    except DataError:
        return None


def _read_record(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _tokenizer_name(data_config: DataConfig) -> str:
    source = data_config.tokenizer
    return f"trained with {source.train.vocab_size} ids" if isinstance(source, TokenizerSource) else source
