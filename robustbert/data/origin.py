"""What prepared data were made of, as their manifests say it, beside what a configuration names and what lies on disk now."""

from pathlib import Path

from robustbert.config.sections import CorpusConfig
from robustbert.data.corpus import read_manifest
from robustbert.data.errors import OtherData

_BY_FILE = {None, "auto"}  # readers that say nothing: the files decide


def check_text(corpus: CorpusConfig, prefix: Path, fraction: float, held_out: bool) -> None:
    """OtherData where the corpus at `prefix` was made of something else than this entry's text, read and split like this.

    fraction: data.valid_fraction. held_out: whether the held-out side belongs at the prefix. An entry with a `path` passes.
    DataError: there is no such corpus.
    """
    if corpus.text is None:
        return
    source = read_manifest(prefix).source
    texts, identity = source.get("text", [corpus.text]), _identity(source)
    split = source.get("valid_fraction", fraction), source.get("held_out", held_out)
    made_by = identity.get("reader")
    other_reader = len({corpus.reader, made_by} - _BY_FILE) > 1
    other_options = _other_options(corpus, identity.get("options", {}))
    if texts == [corpus.text] and split == (fraction, held_out) and not other_reader and not other_options:
        return
    readers = (f" by the reader {made_by}", f" by the reader {corpus.reader}") if other_reader else other_options or ("", "")
    raise OtherData(
        f"{prefix}: was made of {', '.join(texts)}{readers[0]} with data.valid_fraction {split[0]:g}, and the configuration names "
        f"{corpus.text}{readers[1]} with {fraction:g}; bring the one or the other back, or begin a new run with these weights: train.start_from"
    )


def _other_options(corpus: CorpusConfig, options: dict) -> tuple[str, str] | None:
    """How documents and texts were told apart, then and by the entry, in words; None where it is the same, or was found."""
    documents, field = options.get("documents", "two-blank-lines"), options.get("text_field") or "text"
    if corpus.documents not in (None, "auto", documents):
        return f" with documents: {documents}", f" with documents: {corpus.documents}"
    if (corpus.text_field or "text") != field:
        return f" from the field {field}", f" from the field {corpus.text_field or 'text'}"
    return None


def difference(source: dict, now: dict, by_time: bool = True) -> str | None:
    """How a text differs from what it was when a corpus was made of it; None where it does not.

    source: of the corpus' manifest. now: TextSource.identity(). Files count by name, size and (by_time) time, whatever their folder.
    """
    before = _identity(source)
    if before.get("python") != now.get("python"):
        return f"was the prose inside Python {before.get('python')} and is that inside {now.get('python')}"
    then, today = _files(before), _files(now)
    if names := sorted(then.keys() ^ today.keys()):
        return f"had {len(then)} files and has {len(today)} (not in both: {', '.join(names[:3])})"
    for name, (size, time) in sorted(today.items()):
        if then[name][0] != size:
            return f"had {then[name][0]:,} bytes in {name} and has {size:,}"
        if by_time and then[name][1] != time:
            return f"has a {name} that was written again"
    return None


def _identity(source: dict) -> dict:
    """Of the one text that an entry of data.train or data.valid names."""
    return next(iter(source.get("identities") or ()), {})


def _files(identity: dict) -> dict[str, tuple[int, int]]:
    return {Path(path).name: (size, time) for path, size, time, *_ in identity.get("files", ())}
