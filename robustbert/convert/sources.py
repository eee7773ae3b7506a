"""What can be converted: telling the formats apart, and reading a model with its tokenizer from any of them."""

from dataclasses import dataclass
from pathlib import Path

import torch

from robustbert.checkpoint.manifest import committed_checkpoints
from robustbert.config import ModelConfig
from robustbert.convert.errors import ConversionError
from robustbert.convert.fairseq import NAMING as FAIRSEQ
from robustbert.convert.fairseq import check_dictionary, read_fairseq
from robustbert.convert.fairseq_folder import find_model_file, refuse_part
from robustbert.convert.fairseq_reader import FairseqReader
from robustbert.convert.huggingface import CONFIG, read_huggingface
from robustbert.convert.huggingface import NAMING as HUGGINGFACE
from robustbert.convert.new_head import new_head
from robustbert.convert.readers import HuggingfaceReader, Reader, RobustbertReader
from robustbert.convert.weight_files import is_weight_file
from robustbert.convert.whole_model import WholeModel, is_checkpoint, load_checkpoint
from robustbert.data.tokenizer import Tokenizer, has_tokenizer, load_tokenizer
from robustbert.data.tokenizer.byte_bpe import ByteBPE, load_byte_bpe
from robustbert.parallel.mesh import Mesh

FORMATS = ("huggingface", "fairseq", "robustbert")
_DICTIONARY = "dict.txt"


@dataclass(frozen=True)
class Source:
    """path: a checkpoint, a Hugging Face folder, or fairseq's model file, as format (one of FORMATS) says.

    notes: what was chosen where there are several.
    """

    path: Path
    format: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """A whole model with its tokenizer, what reading it has lost, and its format's own reader for the gate."""

    whole: WholeModel
    tokenizer: Tokenizer
    notes: list[str]
    reader: Reader


def find_source(path: Path) -> Source:
    """What `path` stands for: a run for its newest checkpoint, a folder of fairseq for its best model, a file of weights for
    the Hugging Face folder that it is in. ConversionError: nothing.
    """
    if not path.exists():
        raise ConversionError(f"{path}: no such run, checkpoint or model")
    checkpoints = committed_checkpoints(path / "checkpoints")
    if checkpoints:
        return Source(checkpoints[-1], "robustbert")
    if is_checkpoint(path):
        return Source(path, "robustbert")
    if is_weight_file(path) and (path.parent / CONFIG).is_file():
        path = path.parent
    if (path / CONFIG).exists():
        return Source(path, "huggingface")
    if path.suffix == ".pt" and path.is_file():
        refuse_part(path)
        return Source(path, "fairseq")
    found = find_model_file(path)
    if found is not None:
        return Source(found[0], "fairseq", tuple(found[1]))
    raise ConversionError(
        f"{path} is no run with a checkpoint, no complete checkpoint, no Hugging Face model (it has no {CONFIG}) and no "
        f"model of fairseq (it has neither model.pt nor checkpoint_best.pt){_models_below(path)}"
    )


def _models_below(path: Path) -> str:
    """What one might have meant, for a message: a trainer's checkpoints, the snapshots of a download's cache."""
    patterns = (f"*/{CONFIG}", f"snapshots/*/{CONFIG}", "*/checkpoint_best.pt", "*/model.pt")
    folders = sorted({file.parent for pattern in patterns for file in path.glob(pattern)}, key=lambda f: f.stat().st_mtime)
    if folders:
        return f"; name a folder inside it: of {len(folders)} with a model the newest is {folders[-1]}"
    if (path / "adapter_config.json").exists():
        return "; it has an adapter alone: merge it into its model (merge_and_unload) and save that"
    return ""


def read_model(source: Source, tokenizer_dir: Path | None, mesh: Mesh, head_seed: int | None = None) -> Model:
    """The model and its tokenizer; tokenizer_dir: where the source has none beside it (it comes before one that is there).

    head_seed: the seed of a new masked-language-model head, for an encoder that was saved without one.
    ConversionError, CheckpointError, DataError: it cannot be used.
    """
    if source.format == "robustbert":
        if head_seed is not None:
            raise ConversionError(f"{source.path}: a checkpoint has its head; leave out --new-head")
        whole, _ = load_checkpoint(source.path, mesh)
        tokenizer = _find_tokenizer(source.path, tokenizer_dir, whole)
        return Model(whole, tokenizer, [], RobustbertReader(whole, tokenizer, mesh))
    head: dict[str, torch.Tensor] = {}
    naming = HUGGINGFACE if source.format == "huggingface" else FAIRSEQ

    def draw(config: ModelConfig) -> dict[str, torch.Tensor]:
        head.update(new_head(naming, config, head_seed, mesh))
        return head

    give_head = None if head_seed is None else draw
    new = [] if head_seed is None else [f"the masked-language-model head is new, untrained, drawn from seed {head_seed}"]
    if source.format == "huggingface":
        whole, notes = read_huggingface(source.path, give_head)
        tokenizer = _find_tokenizer(source.path, tokenizer_dir, whole)
        return Model(whole, tokenizer, [*new, *notes], HuggingfaceReader(source.path, head))
    whole, notes = read_fairseq(source.path, give_head)
    dictionary = _find_dictionary(source.path, tokenizer_dir)
    tokenizer = _fairseq_tokenizer(source.path, dictionary, tokenizer_dir)
    check_dictionary(source.path, dictionary, tokenizer, whole.config)
    heads = whole.config.num_attention_heads
    reader = FairseqReader(source.path, dictionary, tokenizer, heads, must_load=False, head=head)
    return Model(whole, tokenizer, [*source.notes, *new, *notes], reader)


def reader_of_result(folder: Path, to: str, model: Model, mesh: Mesh) -> Reader:
    """The reader for what was written into `folder` in the format `to`; `model` is what was read from the source."""
    if to == "huggingface":
        return HuggingfaceReader(folder)
    if to == "fairseq":
        num_heads = model.whole.config.num_attention_heads
        return FairseqReader(folder / "model.pt", folder / _DICTIONARY, model.tokenizer, num_heads, must_load=True)
    whole, _ = load_checkpoint(folder, mesh)
    return RobustbertReader(whole, load_tokenizer(folder / "tokenizer"), mesh)


def _find_tokenizer(source: Path, tokenizer_dir: Path | None, whole: WholeModel) -> Tokenizer:
    candidates = [source / "tokenizer", source.parent.parent / "data" / "tokenizer", source]
    if tokenizer_dir is not None:
        candidates = [tokenizer_dir]
    folder = next((folder for folder in candidates if has_tokenizer(folder)), None)
    if folder is None:
        raise ConversionError(f"no tokenizer found beside {source}; name its folder with --tokenizer")
    tokenizer = load_tokenizer(folder)
    if tokenizer.pad_id != whole.config.pad_id:
        raise ConversionError(
            f"{folder}: its padding is id {tokenizer.pad_id}, the model's {whole.config.pad_id}: it is of another model"
        )
    if tokenizer.vocab_size > whole.config.vocab_size:
        raise ConversionError(
            f"{folder} has {tokenizer.vocab_size} ids, the model {whole.config.vocab_size}: it is another model's tokenizer"
        )
    return tokenizer


def _find_dictionary(model_file: Path, tokenizer_dir: Path | None) -> Path:
    """dict.txt lies beside the model; of a training run of fairseq's it is with the data."""
    folders = [model_file.parent] + ([tokenizer_dir] if tokenizer_dir is not None else [])
    found = next((folder / _DICTIONARY for folder in folders if (folder / _DICTIONARY).is_file()), None)
    if found is None:
        raise ConversionError(f"no {_DICTIONARY} beside {model_file}; copy it there, or name its folder with --tokenizer")
    return found


def _fairseq_tokenizer(model_file: Path, dictionary: Path, tokenizer_dir: Path | None) -> ByteBPE:
    """By the model's own dict.txt, and the BPE beside it or in tokenizer_dir."""
    folder = tokenizer_dir or model_file.parent
    if not has_tokenizer(folder):
        raise ConversionError(
            f"{folder} has no encoder.json and vocab.bpe (GPT-2's, which fairseq downloads); name their folder with --tokenizer"
        )
    if (folder / "encoder.json").is_file() and not (folder / "vocab.json").is_file():
        return load_byte_bpe(folder, dictionary)
    tokenizer = load_byte_bpe(folder)  # with ids of its own: they must be those of dict.txt
    tokenizer.check_dictionary(dictionary)
    return tokenizer
