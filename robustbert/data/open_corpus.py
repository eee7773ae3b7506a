"""Opening indexed data, whoever wrote them: a corpus of tools/preprocess, or foreign data with their side files."""

from pathlib import Path

from robustbert.data.corpus import IndexedCorpus, has_manifest
from robustbert.data.errors import DataError
from robustbert.data.foreign.corpus import ForeignCorpus, check_foreign, open_foreign
from robustbert.data.foreign.identity import identity_of
from robustbert.data.foreign.layouts import looks_foreign
from robustbert.data.tokenizer import Tokenizer

Corpus = IndexedCorpus | ForeignCorpus


def is_foreign(prefix: str | Path) -> bool:
    """Whether the data at a prefix, or in a folder, are not of tools/preprocess."""
    return not has_manifest(prefix) and (Path(prefix).is_dir() or looks_foreign(prefix))


def open_corpus(prefix: str | Path, index_dir: str | Path | None, tokenizer: Tokenizer) -> Corpus:
    """Open a corpus for reading; index_dir: where the side files of foreign data lie, None where it is one of ours.

    DataError: it is missing, damaged, has another tokenizer's ids; foreign data changed since they were prepared.
    """
    if index_dir is not None and is_foreign(prefix):
        return open_foreign(prefix, index_dir, tokenizer)
    corpus = IndexedCorpus(prefix)
    if corpus.manifest.tokenizer_sha256 != tokenizer.sha256:
        raise DataError(
            f"{prefix}: its tokens are those of another tokenizer ({corpus.tokenizer_dir}) than the run's; "
            "prepare it with the run's tokenizer"
        )
    return corpus


def check_corpus(prefix: str | Path, tokenizer: Tokenizer | None, tokenizer_name: str) -> None:
    """Check a corpus before anything is made: well under a second. tokenizer: None where it is yet to be trained.

    DataError: it is missing, damaged, or has other ids than the tokenizer.
    """
    if is_foreign(prefix):
        if tokenizer is None:
            raise DataError(
                f"{prefix}: indexed data not of tools/preprocess, whose ids need the tokenizer that made them; set data.tokenizer to "
                "its folder in place of data.tokenizer.train"
            )
        check_foreign(prefix, tokenizer, tokenizer_name)
        return
    corpus = IndexedCorpus(prefix)
    if tokenizer is not None and corpus.manifest.tokenizer_sha256 != tokenizer.sha256:
        raise DataError(
            f"{prefix}: was prepared with the tokenizer {corpus.tokenizer_dir} ({corpus.manifest.vocab_size} ids), the run's "
            f"is {tokenizer_name}: the ids differ; set data.tokenizer to the former, or prepare the corpus with the latter"
        )


def corpus_identity(prefix: str | Path) -> str:
    """A short text that changes with the content of indexed data, ours or others'; it stays the same when they are copied.

    DataError: they are missing.
    """
    if is_foreign(prefix):
        return f"foreign {identity_of(prefix)}"
    manifest = IndexedCorpus(prefix).manifest
    return f"corpus {manifest.bin_sha256[:16]}{manifest.idx_sha256[:16]}"
