"""Initial weights as a pure function of (seed, parameter name): the same for every layout (section 2.2, BERT's rule).

Linear and embedding weights are normal(0, init_std), biases 0, LayerNorm weights 1; the row of <pad> and the rows
that only pad the vocabulary are 0.
"""

import torch

from robustbert.model.roberta import WORD_EMBEDDINGS, RobertaStage
from robustbert.parallel.random import derived_seed


@torch.no_grad()
def initialize_weights(model: RobertaStage, seed: int) -> None:
    """Fill this stage's shards in place. Each matrix is drawn in whole on the CPU, then cut."""
    for name, parameter in model.named_shards():
        full = _draw(name, _full_shape(parameter, model.mesh.tp_size), model.model_config, seed)
        parameter.copy_(cut_shard(full, parameter, model.mesh.tp_rank, model.mesh.tp_size))


def cut_shard(full: torch.Tensor, parameter: torch.nn.Parameter, tp_rank: int, tp_size: int) -> torch.Tensor:
    """This tensor-parallel rank's part of a whole tensor, by the parameter's marks."""
    if not getattr(parameter, "tensor_model_parallel", False):
        return full
    return full.chunk(tp_size, dim=parameter.partition_dim)[tp_rank]


def _full_shape(parameter, tp_size: int) -> list[int]:
    shape = list(parameter.shape)
    if getattr(parameter, "tensor_model_parallel", False):
        shape[parameter.partition_dim] *= tp_size
    return shape


def _draw(name: str, shape: list[int], config, seed: int) -> torch.Tensor:
    if "layer_norm" in name:
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    if name.endswith("bias"):
        return torch.zeros(shape)
    generator = torch.Generator().manual_seed(derived_seed("weights", seed, name))
    full = torch.empty(shape).normal_(0.0, config.init_std, generator=generator)
    if name == WORD_EMBEDDINGS:
        full[config.pad_id] = 0
        full[config.vocab_size :] = 0
    elif name.endswith("position_embeddings.weight"):
        full[config.pad_id] = 0
    return full
