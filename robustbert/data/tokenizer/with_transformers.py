"""A tokenizer's folder as transformers reads it, with the settings that its tokenizer.json has."""

import json
from pathlib import Path

# What transformers takes from tokenizer_config.json, in version 4 as in 5, and what changes no id
_OF_CONFIG = ("add_prefix_space", "trim_offsets", "lowercase", "strip_accents", "handle_chinese_chars")
_OPTIONS = ("max_input_chars_per_word", "ignore_merges", "continuing_subword_prefix", "end_of_word_suffix")


def read_with_transformers(folder: str | Path):
    """The tokenizer of transformers' AutoTokenizer, or of its general class where the first would drop settings.

    transformers 5 (RobertaTokenizer.__init__, BertTokenizer.__init__; seen in 5.24) makes the normalizer, the pre-tokenizer and the
    model's options of its named classes anew: what tokenizer.json says of them, and version 4.57 applied, is dropped silently.
    PreTrainedTokenizerFast takes tokenizer.json as it is.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer = AutoTokenizer.from_pretrained(folder)
    path = Path(folder) / "tokenizer.json"
    if not tokenizer.is_fast or not path.is_file() or not _is_of_ours(saved := json.loads(path.read_text(encoding="utf-8"))):
        return tokenizer
    if _what_makes_ids(saved) != _what_makes_ids(json.loads(tokenizer.backend_tokenizer.to_str())):
        return PreTrainedTokenizerFast.from_pretrained(folder, model_input_names=tokenizer.model_input_names)
    return tokenizer


def keep_added_specials(tokenizer) -> None:
    """Let split_special_tokens=True split the names of the tokenizer's roles (`</s>`) alone, not special tokens that were added.

    Pretraining recognises those in its text (robustbert.data.tokenizer); a text of a task gets the same ids.
    """
    from tokenizers import Tokenizer as Engine

    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    roles = ("bos_token", "eos_token", "sep_token", "cls_token", "unk_token", "pad_token", "mask_token")
    own = {getattr(tokenizer, role) for role in roles}
    added = [token for token in whole["added_tokens"] if token["special"] and token["content"] not in own]
    if added:
        for token in added:
            token["special"] = False
        tokenizer._tokenizer = Engine.from_str(json.dumps(whole))


def _is_of_ours(saved: dict) -> bool:
    """Whether it is of a kind that load_tokenizer reads; others are left to transformers."""
    return (saved.get("model") or {}).get("type") == "WordPiece" or '"ByteLevel"' in json.dumps(saved.get("pre_tokenizer"))


def _what_makes_ids(whole: dict) -> str:
    parts = [_without(whole.get(name)) for name in ("normalizer", "pre_tokenizer")]
    return json.dumps([parts, [whole["model"].get(name) or None for name in _OPTIONS]], sort_keys=True)


def _without(part):
    """A part of tokenizer.json without the fields of _OF_CONFIG, and without a Sequence of one."""
    if isinstance(part, list):
        return [_without(value) for value in part]
    if not isinstance(part, dict):
        return part
    if part.get("type") == "Sequence":
        inner = part.get("normalizers") or part.get("pretokenizers") or []
        if len(inner) == 1:
            return _without(inner[0])
    return {name: _without(value) for name, value in part.items() if name not in _OF_CONFIG}
