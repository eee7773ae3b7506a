"""Every key of the configuration, and what becomes of a change to it when a run is resumed.

The one table of it: a key without a rule fails a test. The entries of data.train and data.valid are compared by what they hold,
see corpora.py; data.tokenizer by its hash.
"""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What becomes of a change."""

    FREE = "free"  # nothing that the run learns follows from it
    LEARNS = "learns"  # taken, shown, recorded: what the run learns, or what it measures, is another thing from here on
    FIXED = "fixed"  # refused: it cannot be had within a run that has learned something
    OWN = "own"  # refused even before the first checkpoint: it says which run this is, or would have no effect
    COMPARED = "compared"  # by what it stands for


class Way(Enum):
    """The way out of a refusal, beside leaving the key as it is."""

    NONE = "none"
    WEIGHTS = "weights"  # a new run that begins with this one's weights
    NEW = "new"  # a new run from initial weights: these fit no other


@dataclass(frozen=True)
class Rule:
    """One key's. `why`: of LEARNS what is another thing, of FIXED and OWN the reason.

    by_schedule: the learning rate before and after says it. measures: held-out perplexities before and after cannot be compared.
    """

    kind: Kind
    why: str = ""
    way: Way = Way.NONE
    by_schedule: bool = False
    measures: bool = False


def _free(*keys: str) -> dict[str, Rule]:
    return dict.fromkeys(keys, Rule(Kind.FREE))


def _learns(why: str, *keys: str, measures: bool = False) -> dict[str, Rule]:
    return dict.fromkeys(keys, Rule(Kind.LEARNS, why, measures=measures))


def _fixed(why: str, way: Way, *keys: str) -> dict[str, Rule]:
    return dict.fromkeys(keys, Rule(Kind.FIXED, why, way))


_SHAPE = "the weights of the run have this shape"
_PLACE = "the run's place in the order of the data would mean other samples, some seen again and some never"
_SCHEDULE = Rule(Kind.LEARNS, by_schedule=True)

RULES: dict[str, Rule] = {
    **dict.fromkeys(("run.name", "run.dir"), Rule(Kind.OWN, "the run's directory is called so", Way.NEW)),
    **_fixed("the order of the data, masks and dropout follow from it", Way.WEIGHTS, "run.seed"),
    **_fixed(
        _SHAPE,
        Way.NEW,
        *(f"model.{key}" for key in ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "max_sequence_length")),
        *(f"model.{key}" for key in ("vocab_size", "num_token_types", "next_sentence_head")),
    ),
    "model.preset": Rule(Kind.OWN, "the sizes of the run's model are in its configuration one by one, and these count"),
    **_fixed("it is part of the function that the weights were learned for", Way.NEW, "model.layernorm_eps"),
    **_fixed("the weights were drawn when the run began", Way.NEW, "model.init_std"),
    **_learns("the share of activations that training drops", "model.dropout", "model.attention_dropout"),
    **_free("model.compile", "model.pad_id"),  # the tokenizer sets pad_id
    **dict.fromkeys(("data.tokenizer", "data.train", "data.valid"), Rule(Kind.COMPARED)),
    **_fixed("the split between training and held-out text is made when the data is prepared", Way.WEIGHTS, "data.valid_fraction"),
    **_fixed(f"the data is cut into samples by it: {_PLACE}", Way.WEIGHTS, "data.format", "data.sequence_length"),
    **_learns(
        "other tokens are hidden, in training and in the evaluation: losses before and after cannot be compared",
        *(f"data.masking.{key}" for key in ("probability", "mask_share", "random_share", "whole_word", "strategy", "num_static_masks")),
        measures=True,
    ),
    **_free("data.pad_to_multiple", "data.num_workers", "data.prepare_workers", "data.index_dir"),
    **_learns("the moments stay, the update made of them is another", "optim.name"),
    **dict.fromkeys(("optim.lr", "optim.warmup_steps", "train.steps"), _SCHEDULE),
    **_learns("the moments stay, new gradients enter them at another rate", "optim.betas"),
    **_learns("every update from here on", "optim.eps", "optim.weight_decay"),
    **_learns("the largest norm of a gradient from here on; 0 does not clip", "optim.clip_grad"),
    **_learns("counts when a loss scale begins; the scale of an fp16 checkpoint continues", "optim.initial_loss_scale"),
    **_learns("how the loss scale of fp16 moves", "optim.min_loss_scale", "optim.loss_scale_window", "optim.loss_scale_hysteresis"),
    **_learns("sequences of a step; the order of the data continues with the next sample", "train.global_batch_size"),
    **_free("train.micro_batch_size", "train.log_interval", "train.eval_interval", "train.cuda_graphs", "train.deterministic"),
    **_learns("held-out perplexities before and after are of other sequences", "train.eval_sequences", measures=True),
    **_fixed("a run takes other weights when it begins, and this one has learned since", Way.NEW, "train.start_from"),
    **_learns("the weights stay, sums are rounded in another way", "precision"),
    **_free(*(f"parallel.{key}" for key in ("tensor", "pipeline", "sequence", "distributed_optimizer", "recompute"))),
    **_free(*(f"checkpoint.{key}" for key in ("interval", "keep_last", "keep_every", "asynchronous", "retries"))),
    **_free(
        *(f"fault_tolerance.{key}" for key in ("max_restarts", "hang_timeout_s", "startup_timeout_s", "silence_timeout_s")),
        *(f"fault_tolerance.{key}" for key in ("stop_grace_s", "start_over", "min_nodes", "max_node_failures", "max_rollbacks")),
        *(f"fault_tolerance.{key}" for key in ("spike_factor", "spike_window", "replica_check_interval")),
    ),
    **_free(
        *(f"cluster.{key}" for key in ("scheduler", "nodes", "processes_per_node", "hosts", "hostfile", "remote_shell", "exclude")),
        *(f"cluster.{key}" for key in ("gpus_per_node", "spare_nodes", "partition", "account", "time_limit", "notice_s", "requeue")),
        "cluster.sbatch_options",
    ),
    **_free(
        *(f"monitoring.{key}" for key in ("prometheus_port", "bind_address", "tensorboard", "push_gateway")),
        *(f"monitoring.{key}" for key in ("collectives_interval", "straggler_factor", "straggler_after_s")),
    ),
}
