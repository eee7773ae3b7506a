"""What `launcher plan` says about a configuration: its layout, what each process keeps in memory, the work of a step."""

from dataclasses import asdict
from itertools import groupby

from robustbert.config import RunConfig
from robustbert.plan.simulation import simulate_positions
from robustbert.throughput import training_flops

GIB = 2**30


def build_plan(config: RunConfig) -> dict:
    """The plan as plain values; config.model.vocab_size must be set. ValueError where the layout cannot be built."""
    processes, parallel = config.cluster.num_processes, config.parallel
    positions = list(simulate_positions(config, processes))
    tokens = config.train.global_batch_size * config.data.sequence_length
    masked = tokens * config.data.masking.probability
    flops = training_flops(config.model, tokens, masked, config.data.sequence_length)
    return {
        "processes": processes,
        "nodes": config.cluster.nodes,
        "layout": {
            "tensor": parallel.tensor,
            "pipeline": parallel.pipeline,
            "data": config.data_parallel_size(processes),
            "sequence": parallel.sequence,
            "distributed_optimizer": parallel.distributed_optimizer,
        },
        "tensor_parallel_within_a_node": config.cluster.processes_per_node % parallel.tensor == 0,
        "micro_batches_a_step": config.num_micro_batches(processes),
        "tokens_a_step": tokens,
        "model_flops_a_step": flops,
        "model_flops_in_all": flops * config.train.steps,
        "positions": [asdict(position) | {"total_bytes": position.total_bytes} for position in positions],
    }


def describe_plan(config: RunConfig, plan: dict) -> str:
    """The plan for a terminal."""
    layout = plan["layout"]
    sequence = ", sequence parallel" if layout["sequence"] else ""
    lines = [
        f"layout          {plan['processes']} processes on {plan['nodes']} nodes = tensor {layout['tensor']} x pipeline "
        f"{layout['pipeline']} x data {layout['data']}{sequence}",
        f"a step          {plan['micro_batches_a_step']} micro-batches of {config.train.micro_batch_size} a process, "
        f"{plan['tokens_a_step']:,} tokens, {plan['model_flops_a_step'] / 1e15:,.2f} PFLOP (model, head at masked positions only)",
        f"the whole run   {config.train.steps:,} steps, {plan['model_flops_in_all'] / 1e21:,.3f} ZFLOP",
        "",
        "kept all the time by a process, GiB; built by the real code without memory",
        f"{'tensor':>6} {'pipeline':>8} {'parameters':>14} {'weights':>9} {'gradients':>9} {'optimizer':>9} {'sum':>9}",
    ]
    for tensors, row in _alike(plan["positions"]):
        kept = [row[f"{name}_bytes"] / GIB for name in ("weight", "gradient", "optimizer", "total")]
        shown = " ".join(f"{value:>9.3f}" for value in kept)
        lines.append(f"{tensors:>6} {row['pipeline']:>8} {row['num_parameters']:>14,} {shown}")
    lines.append("activations, and what a step needs for a moment, come on top: they are not counted yet")
    if not plan["tensor_parallel_within_a_node"]:
        lines.append(
            f"note: tensor-parallel groups of {layout['tensor']} cross nodes of {config.cluster.processes_per_node} processes; "
            "every layer waits for the network"
        )
    return "\n".join(lines)


def _alike(rows: list[dict]) -> list[tuple[str, dict]]:
    """Neighbouring tensor-parallel ranks that keep the same, as one line: (`0-7`, the first one's row)."""
    keys = ("pipeline", "num_parameters", "weight_bytes", "gradient_bytes", "optimizer_bytes")
    lines = []
    for _, group in groupby(rows, key=lambda row: tuple(row[key] for key in keys)):
        first, *others = group
        lines.append((f"{first['tensor']}-{others[-1]['tensor']}" if others else str(first["tensor"]), first))
    return lines
