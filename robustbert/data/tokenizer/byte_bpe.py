"""Byte-level BPE with RoBERTa's ids (section 4.4): reading it from three file formats, training it, saving it.

Ids: <s> 0, <pad> 1, </s> 2, <unk> 3, then the vocabulary, <mask> last.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from robustbert.data.errors import DataError
from robustbert.data.tokenizer.base import FORMATS, Tokenizer, check_ids, config_of, read_json, read_text, write_json
from robustbert.data.tokenizer.hugging_face import (
    Form,
    added_beside,
    added_tokens,
    check_companions,
    check_options,
    check_setting,
    read_config,
    read_form,
)
from robustbert.data.tokenizer.numbering import (
    BOS,
    BYTE_OF,
    EOS,
    MASK,
    NUM_LEADING_SPECIALS,
    PAD,
    SPECIALS,
    UNK,
    dictionary_names,
    gpt2_numbers,
    read_dictionary,
    roberta_numbers,
)
from robustbert.data.tokenizer.settings import Settings, prefix_space, read_byte_level, read_normalizer

_LETTER, _NUMBER = r"[^\W\d_²³¹¼½¾]", r"[\d²³¹¼½¾]"
_UNDECODABLE = "\ufffd"
# Options of the library's model, and what may be there: unk_token, fuse_unk and byte_fallback do nothing where every byte has a
# token. dropout draws other ids at every call.
_BPE_OPTIONS = {"dropout": (0.0,), "continuing_subword_prefix": ("",), "end_of_word_suffix": ("",), "ignore_merges": (False,)}


class ByteBPE(Tokenizer):
    """A byte-level BPE. merges: pairs, the first merged first."""

    # GPT-2's words (Radford et al. 2019), as `re` can say it for the characters that encoder.py knows well, where the only
    # white space is a space.
    _word_pattern = re.compile(
        rf"'s|'t|'re|'ve|'m|'ll|'d| ?{_LETTER}+| ?{_NUMBER}+| ?(?:[^\s\w]|_)+| +(?![^ ])| +"
    )
    _num_separators = 2

    def __init__(self, vocabulary: dict[str, int], merges: list[tuple[str, str]], settings: Settings = Settings()):
        super().__init__(vocabulary, SPECIALS, settings)
        self._merges = merges

    def __reduce__(self):
        return ByteBPE, (self._vocabulary, self._merges, self.settings)

    def word_edges(self) -> tuple[np.ndarray, np.ndarray]:
        """See Tokenizer. A word starts at a space, at a mark of punctuation, and after one; specials are words.

        fairseq looks for the space alone: there a comma belongs to the word before it, and so does the first word of a
        paragraph, which has no space in front. Here every token of punctuation is a word of its own, and the next one
        begins after it: of `don't` the words are `don` and `'t`. A token that is part of a character belongs to the word
        around it. What is left: a paragraph that starts with a letter after one that ends with a letter.
        """
        texts = [_bytes_of(token).decode(errors="replace") for token in self._tokens_by_id()]
        starts = np.array([text[:1].isspace() or _is_mark(text[:1]) for text in texts])
        ends = np.array([_is_mark(text[-1:]) for text in texts])
        whole = self._is_whole_word()
        return starts | whole, ends | whole

    def gpt2_ids(self) -> np.ndarray:
        """See Tokenizer."""
        numbers = gpt2_numbers(self._vocabulary, self._merges)
        return np.array([self._vocabulary[token] for token in sorted(numbers, key=numbers.__getitem__)], np.int64)

    def save_for_fairseq(self, folder: Path) -> None:
        """Write encoder.json and vocab.bpe, as GPT-2 has them, and dict.txt into a folder that exists.

        DataError where <mask> is not the last id: fairseq puts it there; where there are settings, which fairseq does not have.
        """
        for name, value in (*self.settings._asdict().items(), ("add_prefix_space", self.settings.add_prefix_space)):
            if value:
                said = value if isinstance(value, str | bool) else ", ".join(token.content for token in value)
                raise DataError(f"the tokenizer has {name} ({said}), which fairseq's GPT-2 BPE does not know: its ids would differ")
        if self.mask_id != self.vocab_size - 1:
            raise DataError(f"{MASK} has id {self.mask_id} of {self.vocab_size}; fairseq's is the last one")
        gpt2 = gpt2_numbers(self._vocabulary, self._merges)
        write_json(folder / "encoder.json", gpt2)
        (folder / "vocab.bpe").write_text(self._merges_text(), encoding="utf-8")
        lines = "".join(f"{name} 1\n" for name in dictionary_names(self._vocabulary, gpt2))  # how often each occurs: unknown
        (folder / "dict.txt").write_text(lines, encoding="utf-8")

    def check_dictionary(self, path: Path) -> None:
        """DataError where fairseq's dict.txt at `path` has another order of tokens than this tokenizer's ids."""
        order = roberta_numbers(read_dictionary(path, gpt2_numbers(self._vocabulary, self._merges)))
        stray = next((token for token in order if order[token] != self._vocabulary.get(token)), None)
        if stray is not None or len(order) != self.vocab_size:
            raise DataError(
                f"{path}: gives the token {stray!r} the id {order.get(stray)}, its tokenizer {self._vocabulary.get(stray)}; "
                "they belong to different models"
            )

    def _merges_text(self) -> str:
        return "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in self._merges)

    def _identity(self) -> list:
        return [sorted(self._vocabulary.items(), key=lambda item: item[1]), self._merges, *self._identity_of_settings()]

    def _write_files(self, folder: Path) -> None:
        write_json(folder / "vocab.json", dict(sorted(self._vocabulary.items(), key=lambda item: item[1])))
        (folder / "merges.txt").write_text(self._merges_text(), encoding="utf-8")
        mask = dict(content=MASK, lstrip=True, rstrip=False, normalized=False, single_word=False)
        names = dict(bos_token=BOS, eos_token=EOS, unk_token=UNK, sep_token=EOS, cls_token=BOS, pad_token=PAD)
        settings = dict(add_prefix_space=self.settings.add_prefix_space, errors="replace", trim_offsets=True)
        settings |= config_of(self.settings, self._vocabulary, "RobertaTokenizer", ("input_ids", "attention_mask"))
        typed_mask = mask | {"__type": "AddedToken", "special": True}
        write_json(folder / "special_tokens_map.json", names | {"mask_token": mask})
        write_json(folder / "tokenizer_config.json", settings | names | {"mask_token": typed_mask})
        self._hugging_face_form().save(str(folder / "tokenizer.json"))

    @cached_property
    def _plain(self):
        from tokenizers import Tokenizer as Engine
        from tokenizers import decoders, models, pre_tokenizers

        engine = Engine(models.BPE(vocab=self._vocabulary, merges=self._merges))
        engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        engine.decoder = decoders.ByteLevel()
        self.settings.apply(engine)
        return engine

    @cached_property
    def _with_specials(self):
        from tokenizers import AddedToken
        from tokenizers import Tokenizer as Engine

        engine = Engine.from_str(self._plain.to_str())
        engine.add_special_tokens([AddedToken(t, lstrip=t == MASK, normalized=False, special=True) for t in SPECIALS])
        return engine

    def _hugging_face_form(self):
        from tokenizers import Tokenizer as Engine
        from tokenizers import processors

        engine = Engine.from_str(self._with_specials.to_str())
        engine.post_processor = processors.RobertaProcessing(
            (EOS, self.eos_id), (BOS, self.bos_id), trim_offsets=True, add_prefix_space=self.settings.add_prefix_space
        )
        return engine


def load_byte_bpe(folder: Path, dictionary: Path | None = None) -> ByteBPE:
    """Read vocab.json and merges.txt, or encoder.json and vocab.bpe with a dict.txt, or tokenizer.json; see load_tokenizer.

    dictionary: fairseq's dict.txt, where it lies elsewhere than beside encoder.json.
    """
    if (folder / "encoder.json").is_file() and not (folder / "vocab.json").is_file():
        vocabulary = _from_gpt2(_read_vocabulary(folder / "encoder.json"), dictionary or folder / "dict.txt")
        _check_vocabulary(folder / "encoder.json", vocabulary)
        merges = _read_merges(folder / "vocab.bpe", vocabulary)
        _check_alphabet(folder / "encoder.json", vocabulary)
        return ByteBPE(vocabulary, merges)
    config, form = read_config(folder), read_form(folder)
    if form is not None:
        return _from_form(folder, form, config)
    path = folder / "vocab.json"
    ids, kinds = added_tokens(folder, config)
    vocabulary = _read_vocabulary(path) | ids
    _check_vocabulary(path, vocabulary)
    stray = next((content for content in kinds if content not in vocabulary), None)
    if stray is not None:
        raise DataError(f"{folder}: names the added token {stray!r}, but no file gives it an id; save the tokenizer again")
    added = tuple(kinds[content] for content in sorted(kinds, key=vocabulary.get) if content not in SPECIALS)
    pre_tokenizer = prefix_space() if config.get("add_prefix_space") else ""
    merges = _read_merges(folder / "merges.txt", vocabulary)
    _check_alphabet(path, vocabulary)
    return ByteBPE(vocabulary, merges, Settings(added, pre_tokenizer=pre_tokenizer))


def train_byte_bpe(texts: Iterator[str], vocab_size: int) -> ByteBPE:
    """Train a byte-level BPE of vocab_size ids, the five specials and 256 bytes among them (section 4.4).

    Deterministic for the same texts in the same order. The texts are read once; memory holds their distinct words.
    DataError where the texts hold too few distinct pairs for vocab_size.
    """
    from tokenizers import Tokenizer as Engine
    from tokenizers import models, pre_tokenizers, trainers

    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIALS),
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    engine.train_from_iterator(texts, trainer)
    model = json.loads(engine.to_str())["model"]
    tokens = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    if len(tokens) + len(SPECIALS) < vocab_size:
        raise DataError(
            f"the text is too small for a vocabulary of {vocab_size}: it gives {len(tokens) + len(SPECIALS)} tokens; "
            f"use vocab_size {len(tokens) + len(SPECIALS)}, or more text"
        )
    vocabulary = roberta_numbers(tokens)
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    return ByteBPE(vocabulary, merges)


def _from_gpt2(gpt2: dict[str, int], dictionary: Path) -> dict[str, int]:
    if dictionary.is_file():
        return roberta_numbers(read_dictionary(dictionary, gpt2))
    return roberta_numbers(sorted(gpt2, key=gpt2.__getitem__))


def _from_form(folder: Path, form: Form, config: dict) -> ByteBPE:
    """What tokenizer.json says, if the files beside it say the same."""
    path = form.path
    if form.kind != "BPE":
        raise DataError(f"{path}: is a {form.kind}, and vocab.json beside it is a byte-level BPE's; remove the wrong one")
    merges = _merges_of(form)
    check_options(form, _BPE_OPTIONS)
    pre_tokenizer = read_byte_level(form.pre_tokenizer, path)
    settings = Settings(added_beside(form, SPECIALS), read_normalizer(form.normalizer, path), pre_tokenizer)
    vocabulary = form.vocabulary
    _check_vocabulary(path, vocabulary)
    stray = next((pair for pair in merges if any(token not in vocabulary for token in (*pair, "".join(pair)))), None)
    if stray:
        raise DataError(f"{path}: the merge {' '.join(stray)!r} is of tokens that the vocabulary lacks; it is damaged")
    _check_alphabet(path, vocabulary)
    if not settings.need_tokenizer_json or "add_prefix_space" in config:
        prefix = settings.add_prefix_space
        check_setting(form, config.get("add_prefix_space", False if "tokenizer_class" in config else prefix), prefix, "add_prefix_space")
    beside = folder / "vocab.json"
    check_companions(folder, form, config, SPECIALS, _read_vocabulary(beside) if beside.is_file() else {})
    if (folder / "merges.txt").is_file() and _read_merges(folder / "merges.txt", vocabulary) != merges:
        raise DataError(f"{path}: has other merges than merges.txt beside it; they belong to different tokenizers, remove the wrong one")
    return ByteBPE(vocabulary, merges, settings)


def _merges_of(form: Form) -> list[tuple[str, str]]:
    try:
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in form.model["merges"])
        return [(left, right) for left, right in pairs]
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{form.path}: its merges are no pairs of tokens; it is damaged, download it again") from None


def _check_vocabulary(path: Path, vocabulary: dict[str, int]) -> None:
    for i, token in enumerate(SPECIALS):
        expected = i if i < NUM_LEADING_SPECIALS else vocabulary.get(MASK)
        if vocabulary.get(token) is None or vocabulary[token] != expected:
            hint = "name GPT-2's own files encoder.json and vocab.bpe, and the ids are converted"
            if "[CLS]" in vocabulary:
                hint = "[CLS] and [SEP], as ModernBERT and DeBERTa have with a byte-level BPE, are not supported"
            raise DataError(
                f"{path}: {token} has id {vocabulary.get(token)}; RoBERTa has <s> 0, <pad> 1, </s> 2, <unk> 3 and a <mask> ({hint})"
            )
    check_ids(path, vocabulary)


def _check_alphabet(path: Path, vocabulary: dict[str, int]) -> None:
    if missing := [character for character in BYTE_OF if character not in vocabulary]:
        reason = "its words end in </w>" if any(token.endswith("</w>") for token in vocabulary) else "text with them would vanish"
        raise DataError(
            f"{path}: {len(missing)} of the 256 bytes have no token ({', '.join(map(repr, missing[:3]))}, ...; {reason}): it is no "
            "byte-level BPE, or one trained without initial_alphabet=ByteLevel.alphabet()"
        )


def _read_vocabulary(path: Path) -> dict[str, int]:
    vocabulary = read_json(path)
    if not isinstance(vocabulary, dict) or not all(type(i) is int for i in vocabulary.values()):
        raise DataError(f"{path}: must map tokens to whole numbers; {FORMATS}")
    return vocabulary


def _read_merges(path: Path, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    merges = []
    # Not splitlines(): it also splits at characters that may stand inside a token.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        pair = tuple(line.rstrip("\r").split(" "))
        if len(pair) != 2 or any(token not in vocabulary for token in (*pair, "".join(pair))):
            raise DataError(
                f"{path}: line {number} ({line[:40]!r}) merges tokens that the vocabulary lacks; take both of one model"
            )
        merges.append(pair)
    return merges


def _is_mark(character: str) -> bool:
    """Whether a character (or none) is punctuation or a symbol: no letter, digit, accent, space or broken byte."""
    if not character or character == _UNDECODABLE or character.isalnum() or character.isspace():
        return False
    return unicodedata.category(character)[0] in "PS"


def _bytes_of(token: str) -> bytes:
    """The bytes that a token stands for; GPT-2 writes each byte as one printable character."""
    return bytes(BYTE_OF[character] for character in token if character in BYTE_OF)
