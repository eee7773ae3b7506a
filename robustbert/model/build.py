"""build_model: this rank's stage, initialised; build_data_parallel wraps it for training."""

import torch

from robustbert.config import ModelConfig, ParallelConfig
from robustbert.device import PRECISION_DTYPES
from robustbert.model.initialize import initialize_weights
from robustbert.model.roberta import RobertaStage
from robustbert.parallel.mesh import Mesh


def build_model(
    config: ModelConfig,
    parallel: ParallelConfig,
    mesh: Mesh,
    precision: str = "fp32",
    seed: int | None = None,
    variable_lengths: bool = False,
) -> RobertaStage:
    """This rank's stage of the model, on the mesh' device.

    config.vocab_size must be set (it is the tokenizer's). seed: of the initial weights; None leaves them undefined,
    for a checkpoint to fill. variable_lengths: micro-batches are not all equally wide, so pipeline stages tell each other
    the sizes of what they send. ValueError where the layers or heads do not divide.
    """
    if config.vocab_size is None:
        raise ValueError("model.vocab_size is not known yet: it comes from the tokenizer")
    if config.num_layers % mesh.pp_size or config.num_attention_heads % mesh.tp_size:
        raise ValueError(
            f"model.num_layers ({config.num_layers}) and num_attention_heads ({config.num_attention_heads}) must be "
            f"multiples of parallel.pipeline ({mesh.pp_size}) and parallel.tensor ({mesh.tp_size})"
        )
    model = RobertaStage(config, parallel, _megatron_config(config, mesh, precision, variable_lengths), mesh)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    if seed is not None:
        initialize_weights(model, seed)
    return model


def _megatron_config(config: ModelConfig, mesh: Mesh, precision: str, variable_lengths: bool):
    from megatron.core.transformer import TransformerConfig

    dtype = PRECISION_DTYPES[precision]
    return TransformerConfig(
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
        ffn_hidden_size=config.ffn_hidden_size,
        num_attention_heads=config.num_attention_heads,
        tensor_model_parallel_size=mesh.tp_size,
        pipeline_model_parallel_size=mesh.pp_size,
        sequence_parallel=mesh.sequence_parallel,
        variable_seq_lengths=variable_lengths,
        moe_token_dispatcher_type="alltoall",  # of no use here, but megatron-core refuses its own default beside the line above
        params_dtype=dtype,
        pipeline_dtype=dtype,
        fp16=dtype == torch.float16,
        bf16=dtype == torch.bfloat16,
        perform_initialization=False,  # initialize.py does it, independently of the layout
        calculate_per_token_loss=True,  # gradients are divided by the global number of masked tokens
        gradient_accumulation_fusion=False,
        deterministic_mode=False,
    )
