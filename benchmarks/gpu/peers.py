"""Hugging Face's RobertaForMaskedLM (SDPA, bf16 autocast, fused AdamW), eager and compiled, beside this project, in turns.

All train on the same masked batches in one process: one block of steps each, several rounds, medians and ratios.
"""

import contextlib
import gc
import statistics
from collections.abc import Callable

import torch

from benchmarks.gpu.clock import time_blocks
from benchmarks.gpu.context import Context
from benchmarks.gpu.prepare import full_config, make_run
from benchmarks.gpu.session import FixedBatches, forget_compiled, open_session
from robustbert.config import ModelConfig, RunConfig
from robustbert.data.batches import Batch, build_train_batches
from robustbert.data.prepare import prepared_data

OURS, EAGER, COMPILED = "robustbert", "Hugging Face eager", "Hugging Face compiled"
_NUM_BATCHES, _CALLS, _ROUNDS = 8, 8, 4
_CASES = (("roberta-base", 32), ("roberta-large", 16))


class CyclicBatches(FixedBatches):
    """One micro-batch a step, in turn."""

    def micro_batches(self, step: int) -> list:
        return [self._micro_batches[step % len(self._micro_batches)]]


def run(context: Context) -> str:
    """Both models, as far as the time goes."""
    texts, rows, measured = [], [], {}
    for preset, num_rows in (("roberta-base", 4),) if context.rehearse else _CASES:
        if context.left_s() < 25:
            texts.append(f"{preset}: no time left")
            continue
        found = compare(context, preset, num_rows)
        measured[preset] = found
        ours = found[OURS]["tokens_per_s"]
        for name, values in found.items():
            peak = f"{values['peak_bytes'] / 2**30:.1f}" if values.get("peak_bytes") else "-"
            rate = values.get("tokens_per_s")
            rows.append(
                [
                    preset,
                    num_rows,
                    name,
                    f"{rate:,.0f}" if rate else values["error"][:40],
                    f"{ours / rate:.2f}" if rate else "",
                    peak,
                ]
            )
        rates = {name: values.get("tokens_per_s") for name, values in found.items() if name != OURS}
        texts.append(f"{preset}: " + ", ".join(f"{ours / rate:.2f} times {name}" for name, rate in rates.items() if rate))
        columns = ["model", "rows", "program", "tokens/s", "robustbert is x times", "GiB"]
        forget_compiled()
        context.record(
            measured=measured,
            tables=[{"title": "peers: the same batches, in turns, bf16, 512 tokens", "columns": columns, "rows": rows}],
        )
        gc.collect()
    return "; ".join(texts)


def compare(context: Context, preset: str, num_rows: int) -> dict[str, dict]:
    """tokens_per_s and peak_bytes of each program; a peer that fails has `error` instead."""
    overrides = [f"train.micro_batch_size={num_rows}", f"train.global_batch_size={num_rows}"]
    config = full_config(context, *overrides, *([] if context.rehearse else [f"model.preset={preset}"]))
    run_directory = make_run(context, preset)
    batches = _batches(config, run_directory)
    tokens = statistics.mean(batch.num_real_tokens for batch in batches)
    steps: dict[str, Callable] = {}
    found: dict[str, dict] = {}
    device = context.device
    # The peers first: inside open_session megatron-core's calls for CUDA are answered by the CPU where there is none.
    for name in (EAGER,) if context.rehearse else (EAGER, COMPILED):
        with _own_memory(context) as memory:
            try:
                step = peer_step(config, batches, device, compiled=name == COMPILED)
                for _ in range(2):
                    step()
                steps[name], found[name] = step, {}
            except Exception as error:
                found[name] = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:200]}
        found[name] |= memory
    with _own_memory(context) as memory:
        with contextlib.ExitStack() as stack:
            session = stack.enter_context(open_session(config, run_directory, batches=CyclicBatches(batches)))
            for _ in range(5):
                session.step()
            kept = stack.pop_all()
    found[OURS] = memory
    steps[OURS] = session.step
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    with kept:
        for _ in range(2 if context.rehearse else _ROUNDS):
            for name, step in steps.items():
                seconds[name] += time_blocks(step, device, 2 if context.rehearse else _CALLS, 1)
    for name, values in seconds.items():
        found[name] |= {"tokens_per_s": tokens / statistics.median(values), "step_s": values}
    return {name: found[name] for name in (OURS, EAGER, COMPILED) if name in found}


def peer_step(config: RunConfig, batches: list[Batch], device: str, compiled: bool) -> Callable[[], None]:
    """One update of RobertaForMaskedLM of the same shape over the batches in turn."""
    vocab_size = config.model.vocab_size or int(max(batch.tokens_BS.max() for batch in batches)) + 1
    model, optim = peer_model(config.model, vocab_size).to(device), config.optim
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=optim.lr, betas=optim.betas, eps=optim.eps, weight_decay=optim.weight_decay, fused=True
    )
    forward = torch.compile(model) if compiled else model
    inputs = [_pinned(peer_batch(batch), device) for batch in batches]
    number = 0

    def step() -> None:
        nonlocal number
        batch = {name: tensor.to(device, non_blocking=True) for name, tensor in inputs[number % len(inputs)].items()}
        number += 1
        with torch.autocast(device, torch.bfloat16):
            loss = forward(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def peer_model(shape: ModelConfig, vocab_size: int) -> torch.nn.Module:
    """transformers' RobertaForMaskedLM of this shape and dropout, with scaled_dot_product_attention."""
    from transformers import RobertaConfig, RobertaForMaskedLM

    return RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=vocab_size,
            hidden_size=shape.hidden_size,
            num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_attention_heads,
            intermediate_size=shape.ffn_hidden_size,
            max_position_embeddings=shape.max_sequence_length + 2,
            hidden_dropout_prob=shape.dropout,
            attention_probs_dropout_prob=shape.attention_dropout,
            type_vocab_size=1,
            layer_norm_eps=shape.layernorm_eps,
            pad_token_id=shape.pad_id,
            attn_implementation="sdpa",
        )
    )


def peer_batch(batch: Batch) -> dict[str, torch.Tensor]:
    """A Batch as transformers wants it: labels of -100 but at masked positions."""
    tokens_BS = batch.tokens_BS
    labels = torch.full((tokens_BS.numel(),), -100)
    is_real = batch.masked_positions_M >= 0
    labels[batch.masked_positions_M[is_real]] = batch.targets_M[is_real]
    attended = torch.ones_like(tokens_BS) if batch.attended_BS is None else batch.attended_BS.long()
    return {"input_ids": tokens_BS, "attention_mask": attended, "labels": labels.view_as(tokens_BS)}


def _batches(config: RunConfig, run_directory) -> list[Batch]:
    made = build_train_batches(prepared_data(config.data, run_directory.data), config.data, config.train, config.run.seed, 0, 1)
    batches = [batch for step in range(_NUM_BATCHES) for batch in made.micro_batches(step)]
    made.close()
    return batches


def _pinned(batch: dict, device: str) -> dict:
    return {name: tensor.pin_memory() for name, tensor in batch.items()} if device == "cuda" else batch


@contextlib.contextmanager
def _own_memory(context: Context):
    """Yields a dict that holds, afterwards, the most bytes allocated inside beyond what was there before."""
    memory: dict = {}
    if context.rehearse:
        yield memory
        return
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    yield memory
    memory["peak_bytes"] = torch.cuda.max_memory_allocated() - before
