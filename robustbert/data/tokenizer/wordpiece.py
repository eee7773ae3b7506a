"""BERT's WordPiece (RoBERTa, section 4.4): reading vocab.txt, training it, saving it.

Ids are the lines of vocab.txt; the specials [CLS], [PAD], [SEP], [UNK] and [MASK] stand anywhere among them.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from robustbert.data.errors import DataError
from robustbert.data.tokenizer.base import FORMATS, Tokenizer, check_ids, config_of, read_text, write_json
from robustbert.data.tokenizer.hugging_face import (
    CONFIG,
    Form,
    added_beside,
    added_tokens,
    check_companions,
    check_options,
    check_setting,
    is_generic,
    read_config,
    read_form,
)
from robustbert.data.tokenizer.settings import WAY_OUT, Settings

BOS, PAD, EOS, UNK, MASK = "[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"
SPECIALS = (BOS, PAD, EOS, UNK, MASK)
_FIRST_OF_VOCABULARY = (PAD, UNK, BOS, EOS, MASK)  # BERT's order
_PREFIX = "##"  # of a piece that continues a word
_MAX_ALPHABET = 1000  # characters of the text that get ids of their own, as BERT's; the rest is [UNK]
_PUNCTUATION = r"!-/:-@\[-`{-~"
# Options of the library's model, and what may be there
_OPTIONS = {"unk_token": (UNK,), "continuing_subword_prefix": (_PREFIX,), "max_input_chars_per_word": (100,)}
_REPEATS = 1000  # of a word in one text of those that the library is trained on


class Normalisation(NamedTuple):
    """What becomes of a text before it is cut into pieces; the names are those of tokenizer_config.json.

    strip_accents: None as do_lower_case.
    """

    do_lower_case: bool = True
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool = True

    @property
    def strips_accents(self) -> bool:
        """strip_accents, resolved."""
        return self.do_lower_case if self.strip_accents is None else self.strip_accents


class WordPiece(Tokenizer):
    """BERT's tokenizer: control characters go, words are parted at spaces and punctuation, then cut into known pieces."""

    # For the characters that encoder.py knows well. Other punctuation than ASCII's stays within a word: the library parts it.
    _word_pattern = re.compile(rf"[^ {_PUNCTUATION}]+|[{_PUNCTUATION}]")
    _num_separators = 1

    def __init__(self, vocabulary: dict[str, int], normalisation: Normalisation, settings: Settings = Settings()):
        super().__init__(vocabulary, SPECIALS, settings)
        self.normalisation = normalisation

    def __reduce__(self):
        return WordPiece, (self._vocabulary, self.normalisation, self.settings)

    def word_edges(self) -> tuple[np.ndarray, np.ndarray]:
        """See Tokenizer. A word starts at every piece without ##: punctuation is a word of its own, as in BERT."""
        starts = np.array([not token.startswith(_PREFIX) for token in self._tokens_by_id()])
        whole = self._is_whole_word()
        return starts | whole, whole

    def _identity(self) -> list:
        return ["wordpiece", self._tokens_by_id(), *self.normalisation, *self._identity_of_settings()]

    def _write_files(self, folder: Path) -> None:
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in self._pieces()), encoding="utf-8")
        names = dict(cls_token=BOS, sep_token=EOS, pad_token=PAD, unk_token=UNK, mask_token=MASK)
        settings = self.normalisation._asdict() | config_of(self.settings, self._vocabulary, "BertTokenizer", ())
        write_json(folder / "special_tokens_map.json", names)
        write_json(folder / "tokenizer_config.json", settings | names)
        self._hugging_face_form().save(str(folder / "tokenizer.json"))

    def _pieces(self) -> dict[str, int]:
        """The vocabulary without its added tokens at the end: no word is cut into those."""
        added = {token.content for token in self.settings.added}
        end = self.vocab_size
        tokens = self._tokens_by_id()
        while end and tokens[end - 1] in added:
            end -= 1
        return {token: i for i, token in enumerate(tokens[:end])}

    @cached_property
    def _plain(self):
        from tokenizers import Tokenizer as Engine
        from tokenizers import decoders, models, pre_tokenizers

        engine = Engine(models.WordPiece(self._pieces(), unk_token=UNK, continuing_subword_prefix=_PREFIX))
        engine.normalizer = _normaliser(self.normalisation)
        engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        engine.decoder = decoders.WordPiece(prefix=_PREFIX)
        self.settings.apply(engine)
        return engine

    @cached_property
    def _with_specials(self):
        from tokenizers import AddedToken
        from tokenizers import Tokenizer as Engine

        engine = Engine.from_str(self._plain.to_str())
        engine.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIALS])
        return engine

    def _hugging_face_form(self):
        from tokenizers import Tokenizer as Engine
        from tokenizers import processors

        engine = Engine.from_str(self._with_specials.to_str())
        engine.post_processor = processors.TemplateProcessing(
            single=f"{BOS}:0 $A:0 {EOS}:0",
            pair=f"{BOS}:0 $A:0 {EOS}:0 $B:1 {EOS}:1",
            special_tokens=[(BOS, self.bos_id), (EOS, self.eos_id)],
        )
        return engine


def load_wordpiece(folder: Path) -> WordPiece:
    """Read vocab.txt with the files beside it, or tokenizer.json; see load_tokenizer."""
    config, form = read_config(folder), read_form(folder)
    _check_slow_settings(folder / CONFIG, config)
    if form is not None:
        return _from_form(folder, form, config)
    path = folder / "vocab.txt"
    if (folder / "bpe.codes").is_file():
        raise DataError(f"{folder}: bpe.codes and vocab.txt are fastBPE's (PhoBERT, BERTweet), which is not supported; {FORMATS}")
    pieces = _read_pieces(path)
    ids, kinds = added_tokens(folder, config)
    vocabulary = pieces | ids
    check_ids(path, vocabulary)
    added = tuple(kinds[content] for content in sorted(kinds, key=vocabulary.get) if content not in SPECIALS)
    return WordPiece(vocabulary, _normalisation_of(folder / CONFIG, config), Settings(added))


def _from_form(folder: Path, form: Form, config: dict) -> WordPiece:
    """What tokenizer.json says, if the files beside it say the same."""
    path = form.path
    if form.kind != "WordPiece":
        raise DataError(f"{path}: is a {form.kind}, and vocab.txt beside it is a WordPiece's; remove the wrong one")
    check_options(form, _OPTIONS)
    for name, expected in (("normalizer", "BertNormalizer"), ("pre_tokenizer", "BertPreTokenizer")):
        part = getattr(form, name)
        if part is None or part["type"] != expected:
            raise DataError(f"{path}: the {name} {part and part['type']} of a WordPiece is not supported (only {expected}); {WAY_OUT}")
    if not form.normalizer.get("clean_text", True):
        raise DataError(f"{path}: clean_text false of BertNormalizer is not supported; {WAY_OUT}")
    said = form.normalizer
    normalisation = Normalisation(said["lowercase"], said["strip_accents"], said["handle_chinese_chars"])
    if not is_generic(config) or any(name in config for name in Normalisation._fields):
        beside = _normalisation_of(folder / CONFIG, config)
        for name in ("do_lower_case", "strips_accents", "tokenize_chinese_chars"):
            check_setting(form, getattr(beside, name), getattr(normalisation, name), name.replace("strips", "strip"))
    vocabulary = form.vocabulary
    _check_specials(path, vocabulary)
    check_ids(path, vocabulary)
    beside = folder / "vocab.txt"
    check_companions(folder, form, config, SPECIALS, _read_pieces(beside) if beside.is_file() else {})
    tokenizer = WordPiece(vocabulary, normalisation, Settings(added_beside(form, SPECIALS)))
    if stray := tokenizer._pieces().keys() - form.model["vocab"].keys() - set(SPECIALS):
        raise DataError(f"{path}: the added token {min(stray)!r} has an id before others of the vocabulary; save the tokenizer again")
    return tokenizer


def _check_slow_settings(path: Path, config: dict) -> None:
    """DataError for a setting that only transformers' slow tokenizers have: with it ids depend on the class that reads."""
    slow = {
        "never_split": bool(config.get("never_split")),
        "do_basic_tokenize": config.get("do_basic_tokenize") is False,
        "word_tokenizer_type": config.get("word_tokenizer_type") not in (None, "basic"),  # BertJapaneseTokenizer's
        "subword_tokenizer_type": config.get("subword_tokenizer_type") not in (None, "wordpiece"),
    }
    if name := next((name for name, is_set in slow.items() if is_set), None):
        raise DataError(f"{path}: {name} {config[name]!r} is a slow tokenizer's, and is not supported; remove it, or {WAY_OUT}")


def _read_pieces(path: Path) -> dict[str, int]:
    tokens = read_text(path).split("\n")  # not splitlines(): it also splits at characters that may stand inside a token
    if tokens[-1] == "":
        tokens.pop()
    vocabulary = {token.rstrip("\r"): i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        double = next(token for token, count in Counter(token.rstrip("\r") for token in tokens).items() if count > 1)
        raise DataError(f"{path}: the token {double!r} stands on several lines; it is damaged, download it again")
    _check_specials(path, vocabulary)
    return vocabulary


def _check_specials(path: Path, vocabulary: dict[str, int]) -> None:
    missing = [token for token in SPECIALS if token not in vocabulary]
    if missing:
        raise DataError(f"{path}: {', '.join(missing)} is not in it; BERT's vocab.txt has {', '.join(SPECIALS)}")


def train_wordpiece(texts: Iterator[str], vocab_size: int, lowercase: bool) -> WordPiece:
    """Train a WordPiece of vocab_size ids: the specials, the text's characters alone and with ##, and longer pieces.

    See train_tokenizer.
    """
    from tokenizers import Tokenizer as Engine
    from tokenizers import models, pre_tokenizers, trainers

    normalisation = Normalisation(do_lower_case=lowercase)
    normaliser = _normaliser(normalisation)
    words = Counter()
    for text in texts:
        words.update(text.split())
    alphabet = _alphabet(words, normaliser, min(_MAX_ALPHABET, vocab_size // 4))
    engine = Engine(models.WordPiece(unk_token=UNK))
    engine.normalizer, engine.pre_tokenizer = normaliser, pre_tokenizers.BertPreTokenizer()
    # The library numbers the ## characters in the order of a hash table that differs from run to run, and the numbers decide
    # between equally frequent pieces. As special tokens they get their numbers first, in the order given here.
    given = (*_FIRST_OF_VOCABULARY, *alphabet, *(_PREFIX + character for character in alphabet))
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(given),
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    engine.train_from_iterator(_repeated(words), trainer)
    vocabulary = engine.get_vocab()
    if len(vocabulary) < vocab_size:
        raise DataError(
            f"the text is too small for a vocabulary of {vocab_size}: it gives {len(vocabulary)} tokens; "
            f"use vocab_size {len(vocabulary)}, or more text"
        )
    return WordPiece(vocabulary, normalisation)


def _alphabet(words: Counter, normaliser, max_size: int) -> list[str]:
    """The most frequent characters of the normalised words (the lower code point on a tie), sorted."""
    counts = Counter()
    for word, count in words.items():
        for character in normaliser.normalize_str(word):
            counts[character] += count
    frequent = sorted(counts, key=lambda character: (-counts[character], character))
    return sorted([character for character in frequent if not character.isspace()][:max_size])


def _repeated(words: Counter) -> Iterator[str]:
    for word, count in words.items():
        for start in range(0, count, _REPEATS):
            yield " ".join([word] * min(_REPEATS, count - start))


def _normaliser(normalisation: Normalisation):
    from tokenizers import normalizers

    return normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=normalisation.tokenize_chinese_chars,
        strip_accents=normalisation.strip_accents,
        lowercase=normalisation.do_lower_case,
    )


def _normalisation_of(path: Path, config: dict) -> Normalisation:
    values = {name: config[name] for name in Normalisation._fields if name in config}
    for name, value in values.items():
        if not isinstance(value, bool) and (name, value) != ("strip_accents", None):
            raise DataError(f"{path}: {name} must be true or false, it is {value!r}; download it again")
    return Normalisation(**values)
