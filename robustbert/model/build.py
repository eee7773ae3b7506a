"""build_model: this rank's stage, initialised; build_data_parallel wraps it for training."""

import torch

from robustbert.config import ModelConfig, ParallelConfig
from robustbert.device import PRECISION_DTYPES
from robustbert.kernels import elementwise
from robustbert.model.attention import choose_kernel
from robustbert.model.fusion import Fusion, build_fusion
from robustbert.model.initialize import initialize_weights
from robustbert.model.roberta import RobertaStage
from robustbert.parallel.data_parallel import fused_gradient_accumulation_available
from robustbert.parallel.mesh import Mesh


def build_model(
    config: ModelConfig,
    parallel: ParallelConfig,
    mesh: Mesh,
    precision: str = "fp32",
    seed: int | None = None,
    variable_lengths: bool = False,
    attention_kernel: str | None = None,
    fusion: Fusion | None = None,
) -> RobertaStage:
    """This rank's stage of the model, on the mesh' device.

    config.vocab_size must be set (it is the tokenizer's). seed: of the initial weights; None leaves them undefined,
    for a checkpoint to fill. variable_lengths: micro-batches are not all equally wide, so pipeline stages tell each other
    the sizes of what they send. attention_kernel: of model.attention.KERNELS; None: the fastest one of the mesh' device. fusion: None: as model.compile says.
    ValueError where the layers or heads do not divide, and where model.compile cannot be had.
    """
    if config.vocab_size is None:
        raise ValueError("model.vocab_size is not known yet: it comes from the tokenizer")
    if config.num_layers % mesh.pp_size or config.num_attention_heads % mesh.tp_size:
        raise ValueError(
            f"model.num_layers ({config.num_layers}) and num_attention_heads ({config.num_attention_heads}) must be "
            f"multiples of parallel.pipeline ({mesh.pp_size}) and parallel.tensor ({mesh.tp_size})"
        )
    device = mesh.device.torch_device
    if attention_kernel is None:
        head_size = config.hidden_size // config.num_attention_heads
        attention_kernel = choose_kernel(device, PRECISION_DTYPES[precision], head_size)
    if fusion is None:
        has_cpu_kernels = device.type == "cpu" and config.ffn_hidden_size // mesh.tp_size % elementwise.WIDTH_MULTIPLE == 0
        has_cpu_kernels = has_cpu_kernels and elementwise.supports(PRECISION_DTYPES[precision], config.hidden_size)
        fusion = build_fusion(config.compile, device, mesh.tp_size, variable_lengths, has_cpu_kernels)
    fuses_gradients = precision != "fp32" and not fusion.is_compiled and fused_gradient_accumulation_available()
    megatron_config = _megatron_config(config, mesh, precision, variable_lengths, fuses_gradients)
    model = RobertaStage(config, parallel, megatron_config, mesh, attention_kernel, fusion)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    if seed is not None:
        initialize_weights(model, seed)
    return model


def _megatron_config(config: ModelConfig, mesh: Mesh, precision: str, variable_lengths: bool, fuses_gradients: bool):
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
        batch_p2p_sync=False,  # a wait for the device after every transfer between stages, against a fault of old versions of torch
        fp16=dtype == torch.float16,
        bf16=dtype == torch.bfloat16,
        perform_initialization=False,  # initialize.py does it, independently of the layout
        calculate_per_token_loss=True,  # gradients are divided by the global number of masked tokens
        gradient_accumulation_fusion=fuses_gradients,
        deterministic_mode=False,
    )
