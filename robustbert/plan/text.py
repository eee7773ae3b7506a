"""The plan for a terminal."""

import math
from itertools import groupby

from robustbert.config import RunConfig
from robustbert.plan.search import Candidate

GIB = 2**30
_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z")


def describe_plan(config: RunConfig, plan: dict) -> str:
    """All of it in about a screen; what is projected is said to be."""
    return "\n".join([*_layout(config, plan), "", *_memory(plan), "", *_traffic(plan), "", *_time(config, plan), *_notes(plan)])


def describe_search(candidates: list[Candidate], most: int) -> str:
    """The first candidates as a table, and how to take the best."""
    lines = [
        "layouts by their time of a step, those that fit first; sketched from small models (projected)",
        f"{'tensor':>6} {'pipeline':>8} {'recompute':>9} {'micro-batch':>11} {'step s':>8} {'memory GiB':>10}",
    ]
    for candidate in candidates[:most]:
        lines.append(
            f"{candidate.tensor:>6} {candidate.pipeline:>8} {candidate.recompute:>9} {candidate.micro_batch_size:>11} "
            f"{candidate.time.total_s:>8.3f} {candidate.memory_bytes / GIB:>10.2f}{'' if candidate.fits else '  does not fit'}"
        )
    return "\n".join(lines)


def _layout(config: RunConfig, plan: dict) -> list[str]:
    layout = plan["layout"]
    sequence = ", sequence parallel" if layout["sequence"] else ""
    lines = [
        f"layout          {_count(plan['processes'], 'process')} on {_count(plan['nodes'], 'node')} = tensor {layout['tensor']} x pipeline "
        f"{layout['pipeline']} x data {layout['data']}{sequence}",
    ]
    for axis, group in plan["groups"].items():
        if len(group["ranks"]) > 1:
            lines.append(f"  {axis:<13} ranks {_short(group['ranks'])} on {_places(group['nodes'])}, and so on")
    return [
        *lines,
        f"a step          {_count(plan['micro_batches_a_step'], 'micro-batch')} of {config.train.micro_batch_size} a process, "
        f"{plan['tokens_a_step']:,} tokens; {_flop(plan['model_flops_a_step'])} of the model (head at masked positions "
        f"only), {_flop(plan['hardware_flops_a_step'])} done (recompute: {layout['recompute']}, "
        f"layers {'compiled' if layout['compiled_layers'] else 'not compiled'})",
        f"the whole run   {config.train.steps:,} steps, {_flop(plan['model_flops_in_all'])}",
    ]


def _memory(plan: dict) -> list[str]:
    device, kept_back = plan["memory_bytes"] / GIB, plan["reserved_bytes"] / GIB
    lines = [
        f"memory of a process, GiB; built and run by the real code without memory (device: {device:.1f}, {kept_back:.1f} kept back)",
        f"{'tensor':>6} {'pipeline':>8} {'parameters':>13} {'weights':>8} {'gradients':>9} {'optimizer':>9} {'activations':>11} "
        f"{'recomputed':>10} {'sum':>8}",
    ]
    for tensors, row in _alike(plan["positions"]):
        kept = [row[f"{name}_bytes"] / GIB for name in ("weight", "gradient", "optimizer")]
        with_out, with_it = row["activation_bytes_without_recompute"] / GIB, row["activation_bytes_with_recompute"] / GIB
        lines.append(
            f"{tensors:>6} {row['pipeline']:>8} {row['num_parameters']:>13,} {kept[0]:>8.3f} {kept[1]:>9.3f} {kept[2]:>9.3f} "
            f"{with_out:>11.3f} {with_it:>10.3f} {row['total_bytes'] / GIB:>8.3f}{'' if row['fits'] else '  does not fit'}"
        )
    return lines


def _traffic(plan: dict) -> list[str]:
    if not plan["traffic"]:
        return ["traffic         none: one process"]
    lines = [
        "collectives of a process in a step; time projected",
        f"{'axis':>10} {'kind':>15} {'ranks':>6} {'calls':>7} {'messages MB':>12} {'on its wire MB':>14} {'link':>8} {'ms':>9}",
    ]
    for part in plan["traffic"]:
        if part["wire_bytes"] >= 1e4:
            link = "network" if part["crosses_nodes"] else "in node"
            lines.append(
                f"{part['axis']:>10} {part['kind']:>15} {part['group_size']:>6} {part['calls']:>7,} {part['message_bytes'] / 1e6:>12,.1f} "
                f"{part['wire_bytes'] / 1e6:>14,.1f} {link:>8} {part['seconds'] * 1e3:>9,.2f}"
            )
    return lines


def _time(config: RunConfig, plan: dict) -> list[str]:
    projected, parts, risk = plan["projected"], plan["projected"]["step_parts_s"], plan["reliability"]
    shares = ", ".join(f"{name.removesuffix('_s')} {value:.3f}" for name, value in parts.items() if value >= 5e-4)
    return [
        f"PROJECTED for {plan['hardware']}, not measured:",
        f"step            {projected['step_s']:.3f} s ({shares})",
        f"rate            {projected['tokens_per_s']:,.0f} tokens/s, {projected['sequences_per_s']:,.0f} sequences/s; "
        f"{projected['tflops_a_process']:.1f} TFLOP/s a process, MFU {projected['mfu']:.1%}, HFU {projected['hfu']:.1%}",
        f"to the end      {_duration(projected['run_s'])}, {projected['device_hours']:,.0f} device-hours, failures included",
        f"failures        one in {risk['hours_between_failures']:,.0f} h of the job ({risk['node_days_between_failures']:.0f} "
        f"days of a node), {risk['restarts']:.1f} restarts expected",
        f"checkpoints     every {risk['interval_steps']:,} steps: {risk['overhead']:.2%} of the time goes to saving and to work done "
        f"again; best every {risk['best_interval_steps']:,}: {risk['best_overhead']:.2%}",
    ]


def _notes(plan: dict) -> list[str]:
    if plan["tensor_parallel_within_a_node"]:
        return []
    return [
        f"note: tensor-parallel groups of {plan['layout']['tensor']} cross nodes of "
        f"{plan['processes'] // plan['nodes']} processes; every layer waits for the network"
    ]


def _alike(rows: list[dict]) -> list[tuple[str, dict]]:
    """Neighbouring tensor-parallel ranks that need the same, as one line: (`0-7`, the first one's row)."""
    keys = ("pipeline", "num_parameters", "weight_bytes", "gradient_bytes", "optimizer_bytes")
    lines = []
    for _, group in groupby(rows, key=lambda row: tuple(row[key] for key in keys)):
        first, *others = group
        lines.append((f"{first['tensor']}-{others[-1]['tensor']}" if others else str(first["tensor"]), first))
    return lines


def _count(number: int, noun: str) -> str:
    ending = "" if number == 1 else "es" if noun.endswith(("s", "ch")) else "s"
    return f"{number:,} {noun}{ending}"


def _flop(number: float) -> str:
    """For instance `8.431 PFLOP`."""
    power = min(int(math.log10(number)) // 3, len(_PREFIXES) - 1)
    return f"{number / 1000**power:,.3f} {_PREFIXES[power]}FLOP"


def _short(values: list[int]) -> str:
    if len(values) <= 4:
        return " ".join(map(str, values))
    return f"{values[0]} {values[1]} {values[2]} ... {values[-1]}"


def _places(nodes: list[int]) -> str:
    return f"node {nodes[0]}" if len(nodes) == 1 else f"{len(nodes)} nodes"


def _duration(seconds: float) -> str:
    if seconds < 7200:
        return f"{seconds / 60:,.1f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 3 * 86400 else f"{seconds / 86400:,.1f} days"
