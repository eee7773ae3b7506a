"""convert: a run, a checkpoint or a Hugging Face folder into another format, checked by its logits before it counts."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file

from robustbert.checkpoint.manifest import committed_checkpoints
from robustbert.convert.huggingface import from_huggingface, huggingface_config, model_config_of, to_huggingface
from robustbert.convert.verify import compare_with_huggingface
from robustbert.convert.whole_model import (
    WholeModel,
    is_checkpoint,
    load_checkpoint,
    one_process_mesh,
    save_checkpoint,
)
from robustbert.data.tokenizer import Tokenizer, has_tokenizer, load_tokenizer

_WEIGHTS = "model.safetensors"
TARGETS = ("huggingface", "robustbert")


class ConversionError(ValueError):
    """A conversion that cannot be done or did not pass its check; nothing is left behind."""


@dataclass(frozen=True)
class Conversion:
    """What was converted."""

    source: Path
    output: Path
    num_parameters: int
    max_logit_difference: float


def convert(source: Path, to: str, output: Path, tokenizer_dir: Path | None = None) -> Conversion:
    """Convert `source` to the folder `output`, which must not exist.

    source: a run's directory (its newest checkpoint), a checkpoint, or a folder of Hugging Face's RobertaForMaskedLM.
    to: one of TARGETS. tokenizer_dir: where the source has none beside it.
    The result's logits are compared with the source's on fixed tokens; more than 1e-4 apart is a ConversionError.
    """
    if output.exists():
        raise ConversionError(f"{output} exists; nothing is overwritten, choose another --output")
    if to not in TARGETS:
        raise ConversionError(f"cannot convert to {to!r}; known are {', '.join(TARGETS)}")
    source = find_source(source)
    output.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".partial_{output.name}_", dir=output.parent))
    partial = staging / output.name
    try:
        with one_process_mesh() as mesh:
            if is_checkpoint(source):
                whole, _ = load_checkpoint(source, mesh)
            else:
                whole = read_huggingface(source)
            tokenizer = _find_tokenizer(source, tokenizer_dir, whole)
            if to == "huggingface":
                write_huggingface(partial, whole, tokenizer)
                difference = compare_with_huggingface(whole, partial, mesh)
            else:
                save_checkpoint(partial, whole, mesh, origin=str(source))
                tokenizer.save(partial / "tokenizer")
                reread, _ = load_checkpoint(partial, mesh)
                difference = compare_with_huggingface(reread, source, mesh)
        if not difference <= 1e-4:
            raise ConversionError(f"the logits of source and result differ by {difference:.2e}, more than 1e-4; not converted")
        if output.exists():
            raise ConversionError(f"{output} was made by another process in the meantime; nothing is overwritten")
        partial.rename(output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    num_parameters = sum(tensor.numel() for tensor in whole.state.values())
    return Conversion(source, output, num_parameters, difference)


def find_source(source: Path) -> Path:
    """The checkpoint or Hugging Face folder that `source` stands for; a run stands for its newest checkpoint."""
    if not source.exists():
        raise ConversionError(f"{source}: no such run, checkpoint or model")
    checkpoints = committed_checkpoints(source / "checkpoints")
    if checkpoints:
        return checkpoints[-1]
    if is_checkpoint(source) or (source / "config.json").exists():
        return source
    raise ConversionError(
        f"{source} is no run with a checkpoint, no complete checkpoint, and no Hugging Face model (it has no config.json)"
    )


def read_huggingface(folder: Path) -> WholeModel:
    """RobertaForMaskedLM from config.json and safetensors (never a pickle). ValueError for what is no such model."""
    weights = folder / _WEIGHTS
    if not weights.exists():
        raise ConversionError(
            f"{folder} has no {_WEIGHTS}; save the model with save_pretrained(..., safe_serialization=True) first"
        )
    theirs = load_file(weights)
    config = model_config_of(json.loads((folder / "config.json").read_text()), theirs)
    return WholeModel(config, from_huggingface(theirs, config))


def write_huggingface(folder: Path, whole: WholeModel, tokenizer: Tokenizer) -> None:
    """config.json, safetensors and tokenizer files that transformers reads with from_pretrained."""
    tokenizer.save(folder)
    special_ids = {
        "bos_token_id": tokenizer.bos_id,
        "pad_token_id": tokenizer.pad_id,
        "eos_token_id": tokenizer.eos_id,
    }
    config = huggingface_config(whole.config, special_ids)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(to_huggingface(whole.state, whole.config), folder / _WEIGHTS, metadata={"format": "pt"})


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
            f"{folder}: its padding is id {tokenizer.pad_id}, the model's {whole.config.pad_id}: it is another model's tokenizer"
        )
    if tokenizer.vocab_size > whole.config.vocab_size:
        raise ConversionError(
            f"{folder} has {tokenizer.vocab_size} ids, the model {whole.config.vocab_size}: it is another model's tokenizer"
        )
    return tokenizer
