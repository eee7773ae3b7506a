"""Byte-level BPE with RoBERTa's ids (section 4.4): loading it from three file formats, training it, saving it.

Ids: <s> 0, <pad> 1, </s> 2, <unk> 3, then the vocabulary, <mask> last.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from robustbert.data.errors import DataError

BOS, PAD, EOS, UNK, MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"
SPECIALS = (BOS, PAD, EOS, UNK, MASK)
_NUM_LEADING_SPECIALS = 4
_FORMATS = (
    "a tokenizer's folder has vocab.json and merges.txt (RoBERTa's ids), or GPT-2's encoder.json and vocab.bpe "
    "with an optional dict.txt"
)


class Tokenizer:
    """A byte-level BPE; it does not change after it was made.

    vocabulary: token -> id, ids 0 .. vocab_size - 1 without a gap, the specials among them.
    merges: pairs, the first merged first.
    """

    def __init__(self, vocabulary: dict[str, int], merges: list[tuple[str, str]]):
        self._vocabulary, self._merges = vocabulary, merges
        self.vocab_size = len(vocabulary)
        self.bos_id, self.pad_id, self.eos_id, self.unk_id, self.mask_id = (vocabulary[token] for token in SPECIALS)
        self.special_ids = (self.bos_id, self.pad_id, self.eos_id, self.unk_id, self.mask_id)
        self._is_special = np.zeros(self.vocab_size, bool)
        self._is_special[list(self.special_ids)] = True

    def __reduce__(self):
        return Tokenizer, (self._vocabulary, self._merges)

    @cached_property
    def sha256(self) -> str:
        """Hash of the vocabulary and the merges, the same whatever files they were read from."""
        content = [sorted(self._vocabulary.items(), key=lambda item: item[1]), self._merges]
        return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()

    def encode(self, text: str, recognise_specials: bool = False) -> list[int]:
        """The ids of a text, without <s> and </s> around them.

        A text that happens to hold `</s>` or `<mask>` is text: its characters are encoded like any others, so a corpus
        cannot inject a special token. recognise_specials=True is for prompts: there `<mask>` is the special token (and
        takes the space before it), as in Hugging Face's tokenizer.
        """
        return (self._with_specials if recognise_specials else self._plain).encode(text).ids

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """The ids of many texts, each encoded as text (specials are not recognised)."""
        return [encoding.ids for encoding in self._plain.encode_batch_fast(texts)]

    def decode(self, ids: Iterable[int], skip_specials: bool = False) -> str:
        """The text of ids; specials appear by their names unless they are skipped."""
        return self._with_specials.decode([int(i) for i in ids], skip_special_tokens=skip_specials)

    def is_special(self, ids: np.ndarray) -> np.ndarray:
        """For an array of ids: which of them are specials (bool, the same shape)."""
        return self._is_special[ids]

    def save(self, folder: str | Path) -> None:
        """Write vocab.json, merges.txt and what Hugging Face's AutoTokenizer reads beside them; replaces the folder.

        The folder appears whole or not at all. DataError where it cannot be written.
        """
        folder = Path(folder)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as partial:
                whole = Path(partial) / folder.name
                whole.mkdir()
                self._write_files(whole)
                if folder.exists():
                    os.rename(folder, Path(partial) / "replaced")
                os.rename(whole, folder)
        except OSError as error:
            raise DataError(f"{folder}: the tokenizer cannot be written ({error}); choose another place") from None

    def _write_files(self, folder: Path) -> None:
        _write_json(folder / "vocab.json", dict(sorted(self._vocabulary.items(), key=lambda item: item[1])))
        merges = "".join(f"{left} {right}\n" for left, right in self._merges)
        (folder / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")
        mask = dict(content=MASK, lstrip=True, rstrip=False, normalized=False, single_word=False)
        names = dict(bos_token=BOS, eos_token=EOS, unk_token=UNK, sep_token=EOS, cls_token=BOS, pad_token=PAD)
        settings = dict(tokenizer_class="RobertaTokenizer", add_prefix_space=False, errors="replace", trim_offsets=True)
        typed_mask = mask | {"__type": "AddedToken", "special": True}
        _write_json(folder / "special_tokens_map.json", names | {"mask_token": mask})
        _write_json(folder / "tokenizer_config.json", settings | names | {"mask_token": typed_mask})
        self._hugging_face_form().save(str(folder / "tokenizer.json"))

    @cached_property
    def _plain(self):
        from tokenizers import Tokenizer as Engine
        from tokenizers import decoders, models, pre_tokenizers

        engine = Engine(models.BPE(vocab=self._vocabulary, merges=self._merges))
        engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        engine.decoder = decoders.ByteLevel()
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
            (EOS, self.eos_id), (BOS, self.bos_id), trim_offsets=True, add_prefix_space=False
        )
        return engine


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Read a tokenizer's folder: vocab.json and merges.txt, or encoder.json and vocab.bpe with an optional dict.txt.

    vocab.json holds RoBERTa's ids. encoder.json holds GPT-2's: fairseq's dict.txt reorders them (its line i is RoBERTa's
    id i + 4); without dict.txt an id is GPT-2's plus 4. In both cases <mask> comes last.
    DataError: a file is missing or unreadable, the specials are missing or elsewhere, ids with gaps, a merge of
    unknown tokens.
    """
    folder = Path(folder)
    if (folder / "vocab.json").is_file():
        vocabulary_file, merges_file = folder / "vocab.json", folder / "merges.txt"
        vocabulary = _read_vocabulary(vocabulary_file)
    elif (folder / "encoder.json").is_file():
        vocabulary_file, merges_file = folder / "encoder.json", folder / "vocab.bpe"
        vocabulary = _from_gpt2(_read_vocabulary(vocabulary_file), folder / "dict.txt")
    else:
        raise DataError(f"{folder}: {'no tokenizer in it' if folder.is_dir() else 'no such folder'}; {_FORMATS}")
    _check_vocabulary(vocabulary_file, vocabulary)
    return Tokenizer(vocabulary, _read_merges(merges_file, vocabulary))


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> Tokenizer:
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
    vocabulary = {token: i for i, token in enumerate((*SPECIALS[:_NUM_LEADING_SPECIALS], *tokens, MASK))}
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    return Tokenizer(vocabulary, merges)


def _from_gpt2(gpt2: dict[str, int], dictionary: Path) -> dict[str, int]:
    tokens = {i: token for token, i in gpt2.items()}
    order = _read_dictionary(dictionary, tokens) if dictionary.is_file() else [tokens[i] for i in sorted(tokens)]
    return {token: i for i, token in enumerate((*SPECIALS[:_NUM_LEADING_SPECIALS], *order, MASK))}


def _read_dictionary(path: Path, tokens: dict[int, str]) -> list[str]:
    # fairseq pads its dictionary with `madeupword0000 0`: ids that no text uses.
    order = []
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        name = line.split(" ")[0]
        if name.isdigit() and int(name) in tokens:
            order.append(tokens[int(name)])
        elif name.startswith("madeupword"):
            order.append(name)
        else:
            raise DataError(
                f"{path}: line {number} ({line[:40]!r}) is no id of encoder.json; use the dict.txt of the same model"
            )
    missing = len(tokens) - sum(not token.startswith("madeupword") for token in order)
    if missing or len(set(order)) != len(order):
        raise DataError(
            f"{path}: names {len(set(order))} tokens in {len(order)} lines, encoder.json has {len(tokens)}; "
            "it is cut off or belongs to another model; download it again"
        )
    return order


def _check_vocabulary(path: Path, vocabulary: dict[str, int]) -> None:
    for i, token in enumerate(SPECIALS):
        expected = i if i < _NUM_LEADING_SPECIALS else vocabulary.get(MASK)
        if vocabulary.get(token) is None or vocabulary[token] != expected:
            raise DataError(
                f"{path}: {token} has id {vocabulary.get(token)}; RoBERTa has <s> 0, <pad> 1, </s> 2, <unk> 3 and a <mask> "
                "(name GPT-2's own files encoder.json and vocab.bpe, and the ids are converted)"
            )
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise DataError(f"{path}: {len(vocabulary)} tokens, but their ids are not 0 .. {len(vocabulary) - 1}; it is damaged")


def _read_vocabulary(path: Path) -> dict[str, int]:
    try:
        vocabulary = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON ({error}); it is damaged, download it again") from None
    if not isinstance(vocabulary, dict) or not all(type(i) is int for i in vocabulary.values()):
        raise DataError(f"{path}: must map tokens to whole numbers; {_FORMATS}")
    return vocabulary


def _read_merges(path: Path, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    merges = []
    # Not splitlines(): it also splits at characters that may stand inside a token.
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        pair = tuple(line.rstrip("\r").split(" "))
        if len(pair) != 2 or any(token not in vocabulary for token in (*pair, "".join(pair))):
            raise DataError(
                f"{path}: line {number} ({line[:40]!r}) merges tokens that the vocabulary lacks; take both of one model"
            )
        merges.append(pair)
    return merges


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: missing; {_FORMATS}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); download it again") from None


def _write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=None), encoding="utf-8")
