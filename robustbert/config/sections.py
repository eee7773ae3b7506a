"""The sections of a run's configuration: what each key means, its default, and the checks within one section.

Defaults are those of the paper (RoBERTa, Table 9) where it has one. The sections of how a run is operated are in
operation.py; rules that join two sections are in run_config.py; reading and writing YAML is in yaml_file.py.
"""

from dataclasses import dataclass, field
from typing import Literal

MODEL_PRESETS = {
    "roberta-base": dict(num_layers=12, hidden_size=768, ffn_hidden_size=3072, num_attention_heads=12),
    "roberta-large": dict(num_layers=24, hidden_size=1024, ffn_hidden_size=4096, num_attention_heads=16),
}
# The embedding is padded to this many rows' multiple whatever the layout, so that every layout has the same tensors.
VOCAB_PADDING_MULTIPLE = 128
# The formats whose samples are two segments with a next-sentence label (section 4.2).
FORMATS_WITH_PAIRS = ("segment-pair", "sentence-pair")


class ConfigError(ValueError):
    """The user's configuration cannot be used; the message is one line and names the way out."""


def require(condition: bool, message: str) -> None:
    """Raise ConfigError(message) unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def require_positive(section: str, **values) -> None:
    for key, value in values.items():
        require(value > 0, f"{section}.{key} must be above 0, it is {value}")


def require_share(section: str, **values) -> None:
    for key, value in values.items():
        require(0 <= value <= 1, f"{section}.{key} must lie between 0 and 1, it is {value}")


@dataclass(frozen=True)
class RunSection:
    """Which run this is."""

    name: str = ""  # default: the name of the YAML file
    dir: str = "runs"
    seed: int = 1

    def __post_init__(self):
        require(
            not self.name
            or (self.name not in (".", "..") and "/" not in self.name and not self.name.startswith("-") and self.name.isprintable()),
            f"run.name ({self.name!r}) becomes a folder of run.dir: it must have no '/', no control characters, and must not "
            "start with '-'",
        )
        require(0 <= self.seed < 2**63, f"run.seed must lie between 0 and 2^63 - 1, it is {self.seed}")


@dataclass(frozen=True)
class ModelConfig:
    """The encoder's shape (section 2.2, Table 9): a preset, or the sizes themselves."""

    preset: Literal["roberta-base", "roberta-large"] | None = None
    num_layers: int | None = None
    hidden_size: int | None = None
    ffn_hidden_size: int | None = None
    num_attention_heads: int | None = None
    max_sequence_length: int = 512
    dropout: float = 0.1
    attention_dropout: float = 0.1
    vocab_size: int | None = None  # default: the tokenizer's
    layernorm_eps: float = 1e-5
    init_std: float = 0.02
    num_token_types: int = 0  # rows of a token type embedding: 2 with a data.format of pairs, else RoBERTa has none
    next_sentence_head: bool = False  # set by a data.format of pairs (section 4.2)
    # Layers by torch.compile: auto, on a GPU with triton. On the CPU true needs a C++ compiler. A run keeps its choice when it resumes.
    compile: Literal["auto", True, False] = "auto"
    pad_id: int = 1  # <pad>, set by the tokenizer; positions are counted from the number after it, as fairseq does

    def __post_init__(self):
        sizes = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads")
        for key in sizes:
            if getattr(self, key) is None:
                require(
                    self.preset is not None,
                    f"model.{key} is missing; give model.preset ({' or '.join(MODEL_PRESETS)}) or all of {', '.join(sizes)}",
                )
                object.__setattr__(self, key, MODEL_PRESETS[self.preset][key])
        require_positive("model", **{key: getattr(self, key) for key in sizes})
        require_positive("model", max_sequence_length=self.max_sequence_length, layernorm_eps=self.layernorm_eps)
        require(self.num_token_types >= 0, f"model.num_token_types must not be below 0, it is {self.num_token_types}")
        require(self.pad_id >= 0, f"model.pad_id must not be below 0, it is {self.pad_id}")
        require_share("model", dropout=self.dropout, attention_dropout=self.attention_dropout)
        require(
            self.hidden_size % self.num_attention_heads == 0,
            f"model.hidden_size ({self.hidden_size}) must be a multiple of model.num_attention_heads "
            f"({self.num_attention_heads}); use {_round_up(self.hidden_size, self.num_attention_heads)}",
        )
        require(
            self.vocab_size is None or self.vocab_size > 5,
            f"model.vocab_size ({self.vocab_size}) leaves no room beside the five special tokens",
        )

    @property
    def first_position(self) -> int:
        """The row of the position embedding for a sequence's first token; RoBERTa's is 2."""
        return self.pad_id + 1

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding: vocab_size rounded up to VOCAB_PADDING_MULTIPLE."""
        return _round_up(self.vocab_size, VOCAB_PADDING_MULTIPLE)


@dataclass(frozen=True)
class TrainTokenizerConfig:
    """A tokenizer to be trained on the run's own text: RoBERTa's byte-level BPE, or BERT's WordPiece (section 4.4)."""

    vocab_size: int
    kind: Literal["byte-bpe", "wordpiece"] = "byte-bpe"
    lowercase: bool | None = None  # of wordpiece: fold case and accents, as bert-base-uncased does; default: true

    def __post_init__(self):
        least, why = (261, "256 bytes and 5 special tokens") if self.kind == "byte-bpe" else (100, "letters and their pieces")
        require(
            self.vocab_size >= least,
            f"data.tokenizer.train.vocab_size ({self.vocab_size}) must be at least {least}: {why}",
        )
        require(
            not (self.kind == "byte-bpe" and self.lowercase),
            "data.tokenizer.train.lowercase goes with kind: wordpiece; a byte-level BPE keeps the text as it is",
        )


@dataclass(frozen=True)
class TokenizerSource:
    """`data.tokenizer` where it is not a folder: what to train."""

    train: TrainTokenizerConfig


@dataclass(frozen=True)
class CorpusConfig:
    """One corpus: indexed data (`path`, the prefix of a .bin and .idx, ours or others') or raw text (`text`, prepared first)."""

    path: str | None = None
    text: str | None = None  # a file, a glob, or `python:stdlib` (the English prose inside Python itself)
    # Default: each file's content tells, as with auto. `stories` needs more options: tools/preprocess has it.
    reader: (
        Literal[
            "auto", "plain", "jsonl", "json", "csv", "tsv", "parquet", "arrow", "wikipedia", "wikiextractor", "books", "cc-news",
            "openwebtext", "python-prose",
        ]
        | None
    ) = None  # fmt: skip
    # What parts documents in plain text; default, as auto: found, two-blank-lines where that is not certain.
    documents: Literal["auto", "two-blank-lines", "blank-line", "line", "endoftext", "wikitext"] | None = None
    text_field: str | None = None  # of JSON, tables and Parquet: the field with the text (default: text); a.b: b inside a
    weight: float | None = None  # the corpus' share of the samples, relative to the others'; default: its size

    def __post_init__(self):
        require(
            (self.path is None) != (self.text is None),
            "each corpus of data.train and data.valid has either `path` (indexed data) or `text` (raw text)",
        )
        require(self.weight is None or self.weight > 0, f"a corpus' weight must be above 0, it is {self.weight}")
        for name in ("reader", "documents", "text_field"):
            chosen = getattr(self, name) is not None
            require(not chosen or self.text is not None, f"`{name}` goes with `text`, not with `path`")

    @property
    def source(self) -> str:
        """The path or the text, as the user wrote it."""
        return self.path or self.text


@dataclass(frozen=True)
class MaskingConfig:
    """Which tokens are hidden (section 2.3)."""

    strategy: Literal["dynamic", "static"] = "dynamic"  # static: a sample has only num_static_masks masks (section 4.1)
    num_static_masks: int = 10  # of the static strategy: epoch e has mask e mod 10
    probability: float = 0.15
    mask_share: float = 0.8  # of the selected tokens: replaced by <mask>
    random_share: float = 0.1  # replaced by a random token; the rest stays as it is
    whole_word: bool = False  # select words with all their pieces, not single tokens

    def __post_init__(self):
        require(0 < self.probability < 1, f"data.masking.probability must lie between 0 and 1, it is {self.probability}")
        require_positive("data.masking", num_static_masks=self.num_static_masks)
        require_share("data.masking", mask_share=self.mask_share, random_share=self.random_share)
        require(
            self.mask_share + self.random_share <= 1,
            f"data.masking.mask_share ({self.mask_share}) and random_share ({self.random_share}) add up to more than 1",
        )


@dataclass(frozen=True)
class DataConfig:
    """Text, tokenizer, packing and masks (sections 3.2, 4.1, 4.2, 4.4)."""

    tokenizer: str | TokenizerSource
    train: tuple[CorpusConfig, ...]
    valid: tuple[CorpusConfig, ...] = ()
    valid_fraction: float = 0.0  # share of the raw text's documents that is held out
    format: Literal["full-sentences", "doc-sentences", "segment-pair", "sentence-pair"] = "full-sentences"
    sequence_length: int | None = None  # default: model.max_sequence_length
    # Of the formats with shorter samples: a micro-batch is as wide as its longest row, rounded up to a multiple of this.
    # 16 suits every tensor-parallel size.
    pad_to_multiple: int = 16
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    num_workers: int = 1  # threads that make batches ahead of the step; 0: in the training loop itself
    index_dir: str | None = None  # where what is made once of foreign indexed data is put; default: the run's data folder
    prepare_workers: int | None = None  # processes that turn text into indexed data; default: one a core

    def __post_init__(self):
        require(len(self.train) > 0, "data.train names no corpus")
        require(0 <= self.valid_fraction < 1, f"data.valid_fraction must lie between 0 and 1, it is {self.valid_fraction}")
        require(
            self.valid_fraction == 0 or any(c.text for c in self.train),
            "data.valid_fraction holds documents of raw text out, and data.train has none; give data.valid instead",
        )
        require(
            not (self.valid and self.valid_fraction),
            "data.valid and data.valid_fraction exclude each other: the held-out text comes from one of them",
        )
        require(self.num_workers >= 0, f"data.num_workers must not be below 0, it is {self.num_workers}")
        require_positive("data", pad_to_multiple=self.pad_to_multiple)
        require(
            self.prepare_workers is None or self.prepare_workers > 0,
            f"data.prepare_workers must be above 0, it is {self.prepare_workers}",
        )
        require(
            self.sequence_length is None or self.sequence_length >= 8,
            f"data.sequence_length must be at least 8, it is {self.sequence_length}",
        )
        require(
            isinstance(self.tokenizer, str) or any(c.text for c in self.train),
            "data.tokenizer.train needs raw text (`text`) in data.train; or name a tokenizer's folder",
        )

    @property
    def has_pairs(self) -> bool:
        """Whether a sample is two segments with a next-sentence label."""
        return self.format in FORMATS_WITH_PAIRS

    @property
    def has_variable_lengths(self) -> bool:
        """Whether a micro-batch may be narrower than sequence_length."""
        return self.format != "full-sentences"


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its schedule (section 2.4, Table 9); decay is linear, from the end of the warm-up to zero."""

    name: Literal["adam", "lamb"] = "adam"  # lamb: Adam's update scaled by each tensor's trust ratio, for very large batches
    lr: float = 4e-4
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.01
    warmup_steps: int = 30_000
    clip_grad: float = 0.0  # largest norm of the gradient; 0: not clipped
    initial_loss_scale: float = 2.0**12  # this and the three below count with precision: fp16 only
    min_loss_scale: float = 2.0**-13
    loss_scale_window: int = 1000  # steps without overflow after which the scale doubles
    loss_scale_hysteresis: int = 1  # overflows, counted since it last grew, after which it halves

    def __post_init__(self):
        require_positive("optim", lr=self.lr, eps=self.eps, loss_scale_window=self.loss_scale_window)
        require_positive("optim", min_loss_scale=self.min_loss_scale, loss_scale_hysteresis=self.loss_scale_hysteresis)
        require(
            all(0 <= beta < 1 for beta in self.betas), f"optim.betas must lie between 0 and 1, they are {list(self.betas)}"
        )
        require(self.weight_decay >= 0, f"optim.weight_decay must not be below 0, it is {self.weight_decay}")
        require(self.warmup_steps >= 0, f"optim.warmup_steps must not be below 0, it is {self.warmup_steps}")
        require(self.clip_grad >= 0, f"optim.clip_grad must not be below 0, it is {self.clip_grad}")
        require(
            self.initial_loss_scale >= self.min_loss_scale,
            f"optim.initial_loss_scale ({self.initial_loss_scale}) is below optim.min_loss_scale ({self.min_loss_scale})",
        )


@dataclass(frozen=True)
class TrainConfig:
    """How long, and in what batches."""

    steps: int = 500_000
    global_batch_size: int = 8192  # sequences a step, over all processes
    micro_batch_size: int = 8  # sequences one process computes at a time; of the formats with shorter samples at most
    log_interval: int = 10  # steps
    eval_interval: int = 1000  # steps
    eval_sequences: int = 1024  # held-out sequences an evaluation reads
    # A micro-batch as one CUDA graph: for small ones, whose kernels a host cannot start fast enough. Takes memory of its own; has no
    # effect on the CPU.
    cuda_graphs: bool = False
    start_from: str | None = None  # a run or a checkpoint, also a converted one, whose weights the run begins with
    # On CUDA the same bits at every repetition: kernels that add in a fixed order are slower (attention's backward most of all), and an
    # operator without one ends the run. On the CPU it is so anyway.
    deterministic: bool = False

    def __post_init__(self):
        for key in ("steps", "global_batch_size", "micro_batch_size", "log_interval", "eval_interval", "eval_sequences"):
            require_positive("train", **{key: getattr(self, key)})


@dataclass(frozen=True)
class ParallelConfig:
    """The three axes of sharding; the data-parallel size follows from the number of processes."""

    tensor: int = 1
    pipeline: int = 1
    sequence: bool = False  # split LayerNorm and dropout along the sequence over the tensor-parallel ranks
    distributed_optimizer: bool = True  # split the optimizer's state over the data-parallel ranks
    recompute: Literal["none", "full"] = "none"  # full: keep a layer's input only, compute it again backward

    def __post_init__(self):
        require_positive("parallel", tensor=self.tensor, pipeline=self.pipeline)
        require(
            not self.sequence or self.tensor > 1,
            "parallel.sequence splits over the tensor-parallel ranks: it needs parallel.tensor above 1",
        )
        require(
            VOCAB_PADDING_MULTIPLE % self.tensor == 0,
            f"parallel.tensor ({self.tensor}) must divide {VOCAB_PADDING_MULTIPLE}: use 1, 2, 4, 8 or 16",
        )


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
