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
from robustbert.data.tokenizer.base import Tokenizer, read_json, read_text, write_json

BOS, PAD, EOS, UNK, MASK = "[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"
SPECIALS = (BOS, PAD, EOS, UNK, MASK)
_FIRST_OF_VOCABULARY = (PAD, UNK, BOS, EOS, MASK)  # BERT's order
_PREFIX = "##"  # of a piece that continues a word
_MAX_ALPHABET = 1000  # characters of the text that get ids of their own, as BERT's; the rest is [UNK]
_PUNCTUATION = r"!-/:-@\[-`{-~"
_REPEATS = 1000  # of a word in one text of those that the library is trained on


class Normalisation(NamedTuple):
    """What becomes of a text before it is cut into pieces; the names are those of tokenizer_config.json.

    strip_accents: None as do_lower_case.
    """

    do_lower_case: bool = True
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool = True


class WordPiece(Tokenizer):
    """BERT's tokenizer: control characters go, words are parted at spaces and punctuation, then cut into known pieces."""

    # For the characters that encoder.py knows well. Other punctuation than ASCII's stays within a word: the library parts it.
    word_pattern = re.compile(rf"[^ {_PUNCTUATION}]+|[{_PUNCTUATION}]")
    _num_separators = 1

    def __init__(self, vocabulary: dict[str, int], normalisation: Normalisation):
        super().__init__(vocabulary, SPECIALS)
        self.normalisation = normalisation

    def __reduce__(self):
        return WordPiece, (self._vocabulary, self.normalisation)

    def word_edges(self) -> tuple[np.ndarray, np.ndarray]:
        """See Tokenizer. A word starts at every piece without ##: punctuation is a word of its own, as in BERT."""
        starts = np.array([not token.startswith(_PREFIX) for token in self._tokens_by_id()])
        return starts | self._is_special, self._is_special.copy()

    def _identity(self) -> list:
        return ["wordpiece", self._tokens_by_id(), *self.normalisation]

    def _write_files(self, folder: Path) -> None:
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in self._tokens_by_id()), encoding="utf-8")
        names = dict(cls_token=BOS, sep_token=EOS, pad_token=PAD, unk_token=UNK, mask_token=MASK)
        settings = dict(tokenizer_class="BertTokenizer", **self.normalisation._asdict())
        write_json(folder / "special_tokens_map.json", names)
        write_json(folder / "tokenizer_config.json", settings | names)
        self._hugging_face_form().save(str(folder / "tokenizer.json"))

    @cached_property
    def _plain(self):
        from tokenizers import Tokenizer as Engine
        from tokenizers import decoders, models, pre_tokenizers

        engine = Engine(models.WordPiece(self._vocabulary, unk_token=UNK, continuing_subword_prefix=_PREFIX))
        engine.normalizer = _normaliser(self.normalisation)
        engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        engine.decoder = decoders.WordPiece(prefix=_PREFIX)
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
    """Read vocab.txt and, where it is there, tokenizer_config.json; see load_tokenizer."""
    path = folder / "vocab.txt"
    tokens = read_text(path).split("\n")  # not splitlines(): it also splits at characters that may stand inside a token
    if tokens[-1] == "":
        tokens.pop()
    vocabulary = {token.rstrip("\r"): i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        double = next(token for token, count in Counter(token.rstrip("\r") for token in tokens).items() if count > 1)
        raise DataError(f"{path}: the token {double!r} stands on several lines; it is damaged, download it again")
    missing = [token for token in SPECIALS if token not in vocabulary]
    if missing:
        raise DataError(f"{path}: {', '.join(missing)} is not in it; BERT's vocab.txt has {', '.join(SPECIALS)}")
    return WordPiece(vocabulary, _read_normalisation(folder / "tokenizer_config.json"))


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


def _read_normalisation(path: Path) -> Normalisation:
    if not path.exists():
        return Normalisation()
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise DataError(f"{path}: must hold names and values, it is a {type(settings).__name__}; download it again")
    values = {name: settings[name] for name in Normalisation._fields if name in settings}
    for name, value in values.items():
        if not isinstance(value, bool) and (name, value) != ("strip_accents", None):
            raise DataError(f"{path}: {name} must be true or false, it is {value!r}; download it again")
    return Normalisation(**values)
