"""Settings of a tokenizer beside its vocabulary that change a text's ids: added tokens, normalizer, pre-tokenizer.

They are held as the tokenizers library writes them into tokenizer.json, and the library applies them: the ids are its own.
Not among them, because they change no id of a text by itself: post-processor, decoder, trim_offsets, truncation and padding
(arguments of a call, which transformers sets anew at each one).

Texts are encoded sentence by sentence (split_sentences), so a setting whose effect depends on where a text begins or ends, or
that reaches over a space, would give other ids than the library gives for the whole text; such settings are refused.
"""

import json
from pathlib import Path
from typing import NamedTuple

from robustbert.data.errors import DataError

# Each works character by character, or on characters that stand together
_NORMALIZERS = ("Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "StripAccents", "BertNormalizer")
_BEFORE_BYTE_LEVEL = ("Digits", "Punctuation", "Split")
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
WAY_OUT = "save the tokenizer without it, or train one ({train: {vocab_size: N}})"


class AddedToken(NamedTuple):
    """A token that is found in a text before all else; the fields are those of the tokenizers library."""

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True
    special: bool = False


class Settings(NamedTuple):
    """All that changes ids beside vocabulary and merges; the empty ones are those of GPT-2's and BERT's own tokenizer.

    added: beside the five specials, by id. normalizer, pre_tokenizer: JSON of the tokenizers library.
    """

    added: tuple[AddedToken, ...] = ()
    normalizer: str = ""
    pre_tokenizer: str = ""

    @property
    def add_prefix_space(self) -> bool:
        """Whether a text that begins without a space is encoded as if it had one."""
        return bool(self.pre_tokenizer) and json.loads(self.pre_tokenizer).get("add_prefix_space", False)

    @property
    def need_tokenizer_json(self) -> bool:
        """Whether transformers applies them from tokenizer.json alone.

        transformers 5 (RobertaTokenizer.__init__) rebuilds normalizer and pre-tokenizer by its own code and takes only
        add_prefix_space from the folder; PreTrainedTokenizerFast takes the file as it is, in versions 4 and 5.
        """
        return bool(self.normalizer) or json.loads(self.pre_tokenizer or "{}").get("type", "ByteLevel") != "ByteLevel"

    def apply(self, engine) -> None:
        """Give them to a tokenizer of the library, which has the model and the kind's own normalizer and pre-tokenizer."""
        from tokenizers import AddedToken as LibrarysToken
        from tokenizers import Tokenizer as Engine

        parts = {name: json.loads(getattr(self, name)) for name in ("normalizer", "pre_tokenizer") if getattr(self, name)}
        if parts:
            carrier = Engine.from_str(json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}} | parts))
            for name in parts:
                setattr(engine, name, getattr(carrier, name))
        for token in self.added:
            one = [LibrarysToken(**token._asdict())]
            engine.add_special_tokens(one) if token.special else engine.add_tokens(one)


def read_normalizer(form: dict | None, path: Path) -> str:
    """The `normalizer` of tokenizer.json as Settings has it. DataError for one that is not applied character by character."""
    parts = _flat(form, "normalizers")
    for part in parts:
        if part["type"] not in _NORMALIZERS:
            raise DataError(f"{path}: the normalizer {part['type']} is not supported (only {', '.join(_NORMALIZERS)}); {WAY_OUT}")
    return _said(parts, "normalizers")


def read_byte_level(form: dict | None, path: Path) -> str:
    """The `pre_tokenizer` of a byte-level BPE's tokenizer.json as Settings has it; empty where it is GPT-2's.

    DataError for another than ByteLevel, alone or after Digits, Punctuation or Split.
    """
    parts = _flat(form, "pretokenizers")
    kinds = [part["type"] for part in parts]
    stray = next((kind for kind in kinds[:-1] if kind not in _BEFORE_BYTE_LEVEL), None)
    if stray or not kinds or kinds[-1] != "ByteLevel":
        name = stray or (kinds[-1] if kinds else None)
        raise DataError(
            f"{path}: the pre_tokenizer {name} is not supported, a byte-level BPE has ByteLevel (alone, or after "
            f"{', '.join(_BEFORE_BYTE_LEVEL)}); {WAY_OUT}"
        )
    if not parts[-1].get("use_regex", True) and "Split" not in kinds:
        raise DataError(f"{path}: use_regex false of the pre_tokenizer ByteLevel is not supported (tokens reach over spaces); {WAY_OUT}")
    parts[-1] = _BYTE_LEVEL | parts[-1] | {"trim_offsets": True}
    return "" if parts == [_BYTE_LEVEL] else _said(parts, "pretokenizers")


def prefix_space() -> str:
    """The pre-tokenizer of a byte-level BPE with add_prefix_space, as Settings has it."""
    return _said([_BYTE_LEVEL | {"add_prefix_space": True}], "pretokenizers")


def _flat(form: dict | None, parts: str) -> list[dict]:
    if form is None:
        return []
    if form["type"] == "Sequence":
        return [part for inner in form[parts] for part in _flat(inner, parts)]
    return [dict(form)]


def _said(parts: list[dict], name: str) -> str:
    if len(parts) > 1:
        return json.dumps({"type": "Sequence", name: parts}, sort_keys=True)
    return json.dumps(parts[0], sort_keys=True) if parts else ""
