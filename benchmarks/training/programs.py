"""One training step by each program: the same model, the same masked batches, its optimizer included, all on the CPU.

A program is a function (config, batches) -> step; step() trains on the next batch and returns its loss in nats a masked token.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator

import torch

from benchmarks.gpu.peers import CyclicBatches, peer_batch, peer_model
from benchmarks.gpu.session import open_session
from robustbert.config import RunConfig
from robustbert.convert.fairseq_import import mended_for_fairseq
from robustbert.data.batches import Batch
from robustbert.run_directory import RunDirectory

OURS, EAGER, COMPILED, FAIRSEQ = "robustbert", "Hugging Face", "Hugging Face, compiled", "fairseq"
PROGRAMS = (OURS, EAGER, COMPILED, FAIRSEQ)


def missing(program: str, precision: str) -> str | None:
    """Why a program cannot be run here; None if it can."""
    if program == FAIRSEQ and importlib.util.find_spec("fairseq") is None:
        return "fairseq is not installed"
    if program == FAIRSEQ and precision != "fp32":
        return "its bf16 keeps no fp32 weights on a CPU"
    return None


@contextlib.contextmanager
def opened(program: str, config: RunConfig, run: RunDirectory, batches: list[Batch]) -> Iterator[Callable[[], float]]:
    """The program's step, its model and optimizer ready. run: with the prepared data."""
    if program == OURS:
        with open_session(config, run, batches=CyclicBatches(batches)) as session:

            def step() -> float:
                session.step()
                return session.losses()[-1]

            yield step
        return
    build = {EAGER: hugging_face, COMPILED: hugging_face_compiled, FAIRSEQ: fairseq}[program]
    yield build(config, batches)


def hugging_face(config: RunConfig, batches: list[Batch], compiled: bool = False) -> Callable[[], float]:
    """RobertaForMaskedLM in its ordinary settings: scaled_dot_product_attention, autocast for bf16, fused AdamW."""
    model = peer_model(config.model, config.model.vocab_size)
    forward = torch.compile(model) if compiled else model
    inputs = [peer_batch(batch) for batch in batches]
    for batch in inputs:
        if bool(batch["attention_mask"].all()):
            del batch["attention_mask"]  # what it would find out by itself, at every step

    def loss_of(number: int) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            return forward(**inputs[number % len(inputs)]).loss

    return _step(model, loss_of, _adam(config, model, fused=True))


def hugging_face_compiled(config: RunConfig, batches: list[Batch]) -> Callable[[], float]:
    """The same under torch.compile."""
    return hugging_face(config, batches, compiled=True)


def fairseq(config: RunConfig, batches: list[Batch]) -> Callable[[], float]:
    """fairseq's RobertaModel with its masked head, in fp32, and its masked language model loss."""
    with mended_for_fairseq():
        from fairseq.data import Dictionary
        from fairseq.models.roberta import RobertaModel, base_architecture
    from argparse import Namespace

    shape = config.model
    dictionary = Dictionary()
    for number in range(shape.vocab_size - len(dictionary) - 1):
        dictionary.add_symbol(f"token{number}")
    mask_id = dictionary.add_symbol("<mask>")
    assert len(dictionary) == shape.vocab_size == mask_id + 1
    settings = Namespace(
        encoder_layers=shape.num_layers,
        encoder_embed_dim=shape.hidden_size,
        encoder_ffn_embed_dim=shape.ffn_hidden_size,
        encoder_attention_heads=shape.num_attention_heads,
        max_positions=shape.max_sequence_length,
        dropout=shape.dropout,
        attention_dropout=shape.attention_dropout,
        activation_dropout=0.0,
        tokens_per_sample=shape.max_sequence_length,
    )
    base_architecture(settings)

    class Task:
        source_dictionary = dictionary

    model = RobertaModel.build_model(settings, Task)
    inputs = [peer_batch(batch) for batch in batches]

    def loss_of(number: int) -> torch.Tensor:
        batch = inputs[number % len(inputs)]
        is_masked = batch["labels"] >= 0
        logits, _ = model(batch["input_ids"], masked_tokens=is_masked)
        return torch.nn.functional.cross_entropy(logits.float(), batch["labels"][is_masked])

    return _step(model, loss_of, _adam(config, model, fused=False))


def _adam(config: RunConfig, model: torch.nn.Module, fused: bool) -> torch.optim.Optimizer:
    optim = config.optim
    return torch.optim.AdamW(
        model.parameters(), lr=optim.lr, betas=optim.betas, eps=optim.eps, weight_decay=optim.weight_decay, fused=fused
    )


def _step(model: torch.nn.Module, loss_of: Callable[[int], torch.Tensor], optimizer: torch.optim.Optimizer) -> Callable[[], float]:
    model.train()
    number = 0

    def step() -> float:
        nonlocal number
        loss = loss_of(number)
        number += 1
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


