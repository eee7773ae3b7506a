"""RunConfig: the whole of a run's configuration, and the rules that join two of its sections."""

from dataclasses import dataclass, field, replace
from typing import Literal

from robustbert.config.operation import AUTO, CheckpointConfig, ClusterConfig, FaultToleranceConfig, MonitoringConfig
from robustbert.config.sections import (
    DataConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    RunSection,
    TrainConfig,
    require,
)


@dataclass(frozen=True)
class RunConfig:
    """One run. Every section is frozen and already checked; `with_num_processes` gives the layout for a job's size."""

    model: ModelConfig
    data: DataConfig
    run: RunSection = field(default_factory=RunSection)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    fault_tolerance: FaultToleranceConfig = field(default_factory=FaultToleranceConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    monitoring: MonitoringConfig = field(default_factory=MonitoringConfig)

    def __post_init__(self):
        model, data, parallel = self.model, self.data, self.parallel
        if data.has_pairs:
            model = replace(model, num_token_types=max(2, model.num_token_types), next_sentence_head=True)
            object.__setattr__(self, "model", model)
        require(
            data.has_pairs or not model.next_sentence_head,
            f"model.next_sentence_head needs samples of two segments, data.format is {data.format}: leave it out (a format "
            "of pairs sets it)",
        )
        if data.sequence_length is None:
            object.__setattr__(data, "sequence_length", model.max_sequence_length)
        require(
            data.sequence_length <= model.max_sequence_length,
            f"data.sequence_length ({data.sequence_length}) is above model.max_sequence_length ({model.max_sequence_length})",
        )
        for key, size in (
            ("num_attention_heads", model.num_attention_heads),
            ("hidden_size", model.hidden_size),
            ("ffn_hidden_size", model.ffn_hidden_size),
        ):
            require(
                size % parallel.tensor == 0,
                f"model.{key} ({size}) must be a multiple of parallel.tensor ({parallel.tensor})",
            )
        require(
            model.num_layers % parallel.pipeline == 0,
            f"model.num_layers ({model.num_layers}) must be a multiple of parallel.pipeline ({parallel.pipeline})",
        )
        require(
            not parallel.sequence or data.sequence_length % parallel.tensor == 0,
            f"with parallel.sequence, data.sequence_length ({data.sequence_length}) must be a multiple of "
            f"parallel.tensor ({parallel.tensor})",
        )
        require(
            not parallel.sequence or not data.has_variable_lengths or data.pad_to_multiple % parallel.tensor == 0,
            f"with parallel.sequence, data.pad_to_multiple ({data.pad_to_multiple}) must be a multiple of "
            f"parallel.tensor ({parallel.tensor}); use 16, which suits every size",
        )
        trained = getattr(data.tokenizer, "train", None)
        require(
            trained is None or model.vocab_size is None or model.vocab_size >= trained.vocab_size,
            f"model.vocab_size ({model.vocab_size}) is below data.tokenizer.train.vocab_size "
            f"({trained and trained.vocab_size}); leave model.vocab_size out: it follows from the tokenizer",
        )
        require(
            self.optim.warmup_steps < self.train.steps,
            f"optim.warmup_steps ({self.optim.warmup_steps}) must be below train.steps ({self.train.steps})",
        )
        if self.train.cuda_graphs:
            self._check_cuda_graphs()
        least = self.fault_tolerance.min_nodes
        require(
            least is None or least <= self.cluster.nodes,
            f"fault_tolerance.min_nodes ({least}) is above cluster.nodes ({self.cluster.nodes})",
        )
        if self.cluster.processes_per_node != AUTO:
            self.data_parallel_size(self.cluster.num_processes)

    def _check_cuda_graphs(self) -> None:
        reasons = {
            f"parallel.tensor ({self.parallel.tensor}) above 1": self.parallel.tensor > 1,
            f"parallel.pipeline ({self.parallel.pipeline}) above 1": self.parallel.pipeline > 1,
            f"parallel.recompute: {self.parallel.recompute}": self.parallel.recompute != "none",
            f"data.format: {self.data.format}, whose micro-batches have many widths": self.data.has_variable_lengths,
            "precision: fp16, whose loss scale changes": self.precision == "fp16",
        }
        against = [reason for reason, applies in reasons.items() if applies]
        require(not against, f"train.cuda_graphs cannot be had with {' and '.join(against)}; leave it out")

    def data_parallel_size(self, num_processes: int) -> int:
        """Copies of the model that `num_processes` processes make; ConfigError where the sizes do not divide."""
        shards = self.parallel.tensor * self.parallel.pipeline
        require(
            num_processes % shards == 0,
            f"{num_processes} processes (cluster.nodes x cluster.processes_per_node) must be a multiple of parallel.tensor "
            f"({self.parallel.tensor}) x parallel.pipeline ({self.parallel.pipeline}) = {shards}",
        )
        size = num_processes // shards
        step = self.train.micro_batch_size * size
        batch = self.train.global_batch_size
        lower, upper = batch // step * step, -(-batch // step) * step
        ways_out = f"{lower} or {upper}" if lower else f"{upper}"
        require(
            batch % step == 0 or self.data.has_variable_lengths,  # then a step has other sizes, see TrainBatches
            f"train.global_batch_size ({batch}) must be a multiple of train.micro_batch_size "
            f"({self.train.micro_batch_size}) x data-parallel size ({size}) = {step}; use {ways_out}",
        )
        return size

    def num_micro_batches(self, num_processes: int) -> int:
        """Micro-batches one process computes a step (gradient accumulation) where all have the same width."""
        return self.train.global_batch_size // (self.train.micro_batch_size * self.data_parallel_size(num_processes))
