"""train.start_from: which checkpoint it names, and whether a run can begin with it. Imports no torch: `submit` asks it.

Of the other model only the weights are taken, at any layout: the steps, the optimizer and the order of the data begin anew.
"""

import dataclasses
from pathlib import Path

from robustbert.checkpoint.manifest import CheckpointError, committed_checkpoints, read_manifest
from robustbert.config import ModelConfig, RunConfig

_SHAPE = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "max_sequence_length", "vocab_size", "pad_id")
_SHAPE += ("layernorm_eps",)


def find_start(path: str) -> Path:
    """The checkpoint that train.start_from names: a run stands for its newest. CheckpointError where there is none."""
    folder = Path(path).expanduser().absolute()
    if found := committed_checkpoints(folder / "checkpoints"):
        return found[-1]
    try:
        read_manifest(folder)
    except CheckpointError as error:
        raise CheckpointError(
            f"train.start_from: {path} is no run with a checkpoint and no checkpoint ({error}); a model of Hugging Face or fairseq "
            f"becomes one: tools/convert {path} --to robustbert --output DIR"
        ) from None
    return folder


def with_pinned_start(config: RunConfig) -> RunConfig:
    """The configuration with train.start_from as the checkpoint it stands for now, whatever the other run saves later."""
    if config.train.start_from is None:
        return config
    folder = str(find_start(config.train.start_from))
    return dataclasses.replace(config, train=dataclasses.replace(config.train, start_from=folder))


def check_start(folder: Path, model: ModelConfig, tokenizer_sha256: str) -> None:
    """CheckpointError where a checkpoint's model has another shape than `model`, or was trained with another tokenizer.

    What `model` leaves to the tokenizer (None) is not compared.
    """
    manifest = read_manifest(folder)
    theirs, mine = manifest.config.get("model", {}), dataclasses.asdict(model)
    different = [key for key in _SHAPE if mine[key] is not None and theirs.get(key) not in (None, mine[key])]
    if theirs.get("num_token_types", 0) > mine["num_token_types"]:  # left out, the same weights would be another model
        different.append("num_token_types")
    if different:
        wanted = " ".join(f"model.{key}={theirs[key]}" for key in different)
        raise CheckpointError(f"train.start_from: {folder} has a model of another shape; give this run's the same: {wanted}")
    sha256 = manifest.state.get("tokenizer_sha256")
    if sha256 is None:  # a converted model has its tokenizer beside it
        from robustbert.data.tokenizer import load_tokenizer

        sha256 = load_tokenizer(folder / "tokenizer").sha256
    if sha256 != tokenizer_sha256:
        own = folder / "tokenizer"
        place = own if own.is_dir() else folder.parent.parent / "data" / "tokenizer"
        raise CheckpointError(
            f"train.start_from: {folder} was trained with another tokenizer (sha256 {sha256[:12]}) than data.tokenizer "
            f"({tokenizer_sha256[:12]}); take the one it was trained with: data.tokenizer={place}"
        )
