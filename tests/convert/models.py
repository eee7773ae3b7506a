"""Small models with random weights, in the formats that tests convert."""

from argparse import Namespace
from pathlib import Path

import torch

from robustbert.config import ModelConfig, ParallelConfig
from robustbert.convert.whole_model import WholeModel, one_process_mesh, state_of
from robustbert.model.build import build_model

TEXT = ["The quick brown fox jumps over the lazy dog, and the dog does not mind at all."] * 50
SMALL = dict(num_layers=2, hidden_size=32, ffn_hidden_size=64, num_attention_heads=4, max_sequence_length=40, vocab_size=300)
PLAIN = ModelConfig(**SMALL)
PAIRS = ModelConfig(**SMALL, num_token_types=2, next_sentence_head=True)


def random_whole(config: ModelConfig, spread: float = 0.1) -> WholeModel:
    """Every tensor random, biases and LayerNorms too; padded vocabulary rows are zero.

    spread: the noise beside the initial weights. Wide layers with much of it have logits of a size that trained ones never have.
    """
    generator = torch.Generator().manual_seed(3)
    with one_process_mesh() as mesh:
        state = state_of(build_model(config, ParallelConfig(), mesh, seed=1))
    for tensor in state.values():
        tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=spread)
    for name in ("embeddings.word_embeddings.weight", "lm_head.bias"):
        state[name][config.vocab_size :] = 0
    return WholeModel(config, state)


def as_released(content: dict) -> dict:
    """fairseq's checkpoint in the layout of RoBERTa's release: args, old names, query, key and value fused, fp16."""
    model = {}
    for name, tensor in content["model"].items():
        name = name.replace("encoder.", "decoder.", 1).replace(".layernorm_embedding.", ".emb_layer_norm.")
        if ".q_proj." in name:
            now = name.replace("decoder.", "encoder.", 1)
            parts = [content["model"][now.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            name, tensor = name.replace(".q_proj.", ".in_proj_"), torch.cat(parts)
        if ".k_proj." not in name and ".v_proj." not in name and not name.endswith(".version"):
            model[name] = tensor.half()
    settings = {key: value for key, value in content["cfg"]["model"].items() if key != "_name"}
    args = Namespace(task="masked_lm", criterion="masked_lm", data=".", **settings)
    return {"args": args, "model": model, **{key: content[key] for key in ("optimizer_history", "extra_state")}}


def copy_of(folder: Path, target: Path, model_file: dict | None = None, old_format: bool = False) -> Path:
    """A folder of fairseq's with another model.pt."""
    target.mkdir()
    for path in folder.iterdir():
        if path.name != "model.pt" or model_file is None:
            (target / path.name).write_bytes(path.read_bytes())
    if model_file is not None:
        torch.save(model_file, target / "model.pt", _use_new_zipfile_serialization=not old_format)
    return target
