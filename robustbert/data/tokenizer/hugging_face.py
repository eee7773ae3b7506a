"""What Hugging Face's libraries save beside a vocabulary: tokenizer.json, tokenizer_config.json and the files of added tokens.

tokenizer.json is the whole tokenizer, and what it says counts. The other files must agree with it: transformers takes some
settings from tokenizer_config.json instead (add_prefix_space, do_lower_case, ...), so a folder in which the two differ has
other ids by version and by library, and is refused. Without tokenizer.json the other files count.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from robustbert.data.errors import DataError
from robustbert.data.tokenizer.base import FORMATS, read_json
from robustbert.data.tokenizer.settings import WAY_OUT, AddedToken

TOKENIZER, CONFIG, SPECIALS_MAP, ADDED = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
# Names of further special tokens: of transformers up to version 4, and of 5
_MORE_SPECIALS = ("additional_special_tokens", "extra_special_tokens")
_GENERIC_CLASSES = (None, "PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend")


class Form(NamedTuple):
    """tokenizer.json. kind: BPE or WordPiece. ids: of all added tokens, the specials among them."""

    path: Path
    kind: str
    model: dict
    added: dict[str, AddedToken]
    ids: dict[str, int]
    normalizer: dict | None
    pre_tokenizer: dict | None

    @property
    def vocabulary(self) -> dict[str, int]:
        """Token -> id, added ones among them."""
        return self.model["vocab"] | self.ids


def read_form(folder: Path) -> Form | None:
    """tokenizer.json of a folder; None where it has none. DataError: damaged, or of a kind that is not supported."""
    path = folder / TOKENIZER
    if not path.is_file():
        return None
    whole = read_json(path)
    try:
        model = whole["model"]
        kind = model.get("type") or ("BPE" if "merges" in model else "WordPiece" if "max_input_chars_per_word" in model else "unknown")
        if kind not in ("BPE", "WordPiece"):
            name = "SentencePiece's Unigram (as XLM-R, DeBERTa-v2, ALBERT and T5 have)" if kind == "Unigram" else f"a model of type {kind}"
            raise DataError(f"{path}: is {name}, which is not supported; {FORMATS}")
        added = {token["content"]: _added(token) for token in whole.get("added_tokens") or ()}
        ids = {token["content"]: token["id"] for token in whole.get("added_tokens") or ()}
        form = Form(path, kind, model, added, ids, whole.get("normalizer"), whole.get("pre_tokenizer"))
        if not all(isinstance(token, str) and type(i) is int for token, i in form.vocabulary.items()):
            raise TypeError
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: is no tokenizer of Hugging Face's library; it is damaged, download it again") from None
    return _with_library_parts(form)


def read_config(folder: Path) -> dict:
    """tokenizer_config.json; empty where there is none."""
    return _read_object(folder / CONFIG)


def is_generic(config: dict) -> bool:
    """Whether no class of transformers is named that has settings of its own."""
    return config.get("tokenizer_class") in _GENERIC_CLASSES


def added_beside(form: Form, specials: Iterable[str]) -> tuple[AddedToken, ...]:
    """The added tokens of tokenizer.json beside the specials, by id."""
    return tuple(form.added[content] for content in sorted(form.added, key=form.ids.get) if content not in specials)


def added_tokens(folder: Path, config: dict) -> tuple[dict[str, int], dict[str, AddedToken]]:
    """The added tokens of a folder by its files beside tokenizer.json: ids, and what they are.

    A token may be named without an id (additional_special_tokens): then it is in the second alone.
    """
    ids = dict(_read_object(folder / ADDED))
    kinds = {content: AddedToken(content) for content in ids}
    try:
        for number, token in (config.get("added_tokens_decoder") or {}).items():
            kinds[token["content"]], ids[token["content"]] = _added(token), int(number)
        for source in (_read_object(folder / SPECIALS_MAP), config):
            for token in (token for name in _MORE_SPECIALS for token in _listed(source.get(name))):
                content = token["content"] if isinstance(token, dict) else token
                kind = _added(token) if isinstance(token, dict) else kinds.get(content, AddedToken(content, normalized=False))
                kinds[content] = kind._replace(special=True)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise DataError(f"{folder / CONFIG}: its added tokens are none of transformers'; it is damaged, download it again") from None
    return ids, kinds


def check_companions(folder: Path, form: Form, config: dict, specials: Iterable[str], vocabulary: dict[str, int]) -> None:
    """DataError where the files beside tokenizer.json add tokens, find them elsewhere in a text, or have other ids.

    vocabulary: of the file beside it, empty where there is none. specials: are not found in texts, whatever is said of them.
    """
    ids, kinds = added_tokens(folder, config)
    stray = next((content for content in kinds if content not in form.added), None)
    if stray is not None:
        raise DataError(f"{folder}: {CONFIG} or a file beside it adds the token {stray!r}, {TOKENIZER} does not; save the tokenizer again")
    found = (content for content in kinds if content not in specials)
    other = next((content for content in found if not _agree(kinds[content], form.added[content])), None)
    if other is not None:
        raise DataError(
            f"{folder}: {CONFIG} or a file beside it says {_flags(kinds[other])} of the added token {other!r}, {TOKENIZER} "
            f"{_flags(form.added[other])}, and libraries differ in which they follow; save the tokenizer again"
        )
    theirs = form.vocabulary
    for content, i in (vocabulary | ids).items():
        if theirs.get(content) != i:
            raise DataError(
                f"{form.path}: gives the token {content!r} the id {theirs.get(content)}, the files beside it {i}; "
                "they belong to different tokenizers, remove the wrong ones"
            )


def check_setting(form: Form, config_says, form_says, name: str) -> None:
    """DataError where tokenizer_config.json and tokenizer.json say different things of a setting."""
    if config_says != form_says:
        raise DataError(
            f"{form.path}: has {name} {_json(form_says)}, {CONFIG} beside it {_json(config_says)}, and libraries differ in which "
            "they follow; set both to what the text is to be encoded with"
        )


def check_options(form: Form, expected: dict) -> None:
    """DataError where the model has another option than the expected one (one of several, or absent)."""
    for name, allowed in expected.items():
        value = form.model.get(name)
        if value is not None and value not in allowed:
            raise DataError(f"{form.path}: {name} is {_json(value)}, which is not supported (only {_json(allowed[0])}); {WAY_OUT}")


def _added(token: dict) -> AddedToken:
    values = {name: token[name] for name in AddedToken._fields if name in token}
    if not isinstance(values["content"], str) or not all(isinstance(v, bool) for n, v in values.items() if n != "content"):
        raise TypeError
    return AddedToken(**values)


def _with_library_parts(form: Form) -> Form:
    """The form with normalizer and pre-tokenizer as the library writes them (older files leave out types and defaults).

    DataError where the library cannot read them.
    """
    from tokenizers import Tokenizer as Engine
    from tokenizers import __version__

    parts = {"normalizer": form.normalizer, "pre_tokenizer": form.pre_tokenizer}
    try:
        engine = Engine.from_str(json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}} | parts))
    except Exception as error:  # the library raises no narrower one
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{form.path}: tokenizers {__version__} cannot read its normalizer or pre_tokenizer ({reason}); update the library, or "
            "download the file again"
        ) from None
    whole = json.loads(engine.to_str())
    return form._replace(**{name: whole[name] for name in parts})


def _agree(kind: AddedToken, other: AddedToken) -> bool:
    """Whether two say the same of where a token is found; one that is known by its name alone says nothing."""
    return _flags(kind) == _flags(other) or kind in (AddedToken(kind.content), AddedToken(kind.content, normalized=False, special=True))


def _flags(token: AddedToken) -> str:
    set_ones = [name for name in ("single_word", "lstrip", "rstrip", "normalized") if getattr(token, name)]
    return ", ".join(set_ones) or "none of single_word, lstrip, rstrip, normalized"


def _listed(value) -> Iterable:
    return value.values() if isinstance(value, dict) else value or ()


def _read_object(path: Path) -> dict:
    if not path.exists():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path}: must hold names and values, it is a {type(value).__name__}; download it again")
    return value


def _json(value) -> str:
    return json.dumps(value, ensure_ascii=False)
