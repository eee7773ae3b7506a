"""What `launcher plan` finds out about a configuration: layout, memory, work, traffic, time, failures; as plain values."""

import dataclasses
from collections.abc import Callable
from dataclasses import asdict

from robustbert.config import RunConfig
from robustbert.plan.estimate import owned_parameters, step_parts, step_time, traffic_of
from robustbert.hardware import HardwareProfile
from robustbert.plan.reliability import estimate_reliability
from robustbert.plan.simulated_device import SimulatedDevice
from robustbert.plan.simulation import compiles_layers, first_rank_of_stage, simulate_positions, simulate_step
from robustbert.throughput import training_flops

_SAVED_BYTES = 12  # of a parameter in a checkpoint: weight and two moments, fp32


def build_plan(
    config: RunConfig, hardware: HardwareProfile, node_days: float, say: Callable[[str], None] = lambda words: None
) -> dict:
    """The plan as plain values; config.model.vocab_size must be set. ValueError where the layout cannot be built.

    node_days: between failures of one node. say: is told what is being done, as this takes some seconds a stage.
    """
    processes, parallel = config.cluster.num_processes, config.parallel
    say("building every position of the layout")
    positions = list(simulate_positions(config, processes))
    stages = []
    for stage in range(parallel.pipeline):
        say(f"simulating a step of stage {stage + 1} of {parallel.pipeline}, with and without recomputation")
        stages.append(_stage(config, processes, stage, hardware))
    slowest = max(stages, key=lambda stage: stage["time"].total_s)
    record, parts, time = slowest["record"], slowest["parts"], slowest["time"]
    num_micro_batches = config.num_micro_batches(processes)
    tokens = config.train.global_batch_size * config.data.sequence_length
    masked = tokens * config.data.masking.probability
    flops = training_flops(config.model, tokens, masked, config.data.sequence_length)
    rate = flops / processes / time.total_s
    done = sum(stage["parts"].flops for stage in stages) / len(stages) * num_micro_batches / time.total_s
    run_s = time.total_s * config.train.steps
    # Training stands still while every process copies the fp32 weights and moments that it owns; they are written behind it.
    copied = _SAVED_BYTES * max(owned_parameters(position, config, processes) for position in positions)
    save_s = hardware.checkpoint_start_s + copied / hardware.host_bytes_per_s
    reliability = estimate_reliability(
        run_s, time.total_s, config.checkpoint.interval, config.cluster.nodes, save_s, hardware.restart_s, node_days
    )
    needed = [_need(position, stages[position.pipeline], hardware) for position in positions]
    return {
        "hardware": hardware.name,
        "processes": processes,
        "nodes": config.cluster.nodes,
        "layout": {
            "tensor": parallel.tensor,
            "pipeline": parallel.pipeline,
            "data": config.data_parallel_size(processes),
            "sequence": parallel.sequence,
            "distributed_optimizer": parallel.distributed_optimizer,
            "recompute": parallel.recompute,
            "compiled_layers": compiles_layers(config, SimulatedDevice.of(hardware.kernels)),
        },
        "groups": _groups(config),
        "tensor_parallel_within_a_node": config.cluster.processes_per_node % parallel.tensor == 0,
        "micro_batches_a_step": num_micro_batches,
        "tokens_a_step": tokens,
        "model_flops_a_step": flops,
        "model_flops_in_all": flops * config.train.steps,
        "positions": needed,
        "fits": all(row["fits"] for row in needed),
        "memory_bytes": hardware.memory_bytes,
        "reserved_bytes": hardware.reserved_bytes,
        "hardware_flops_a_step": sum(stage["parts"].flops for stage in stages)
        * num_micro_batches
        * parallel.tensor
        * config.data_parallel_size(processes),
        "traffic": [asdict(part) for part in traffic_of(record, num_micro_batches, hardware, config.cluster.processes_per_node)],
        "projected": {
            "step_s": time.total_s,
            "step_parts_s": asdict(time),
            "tokens_per_s": tokens / time.total_s,
            "sequences_per_s": config.train.global_batch_size / time.total_s,
            "tflops_a_process": rate / 1e12,
            "mfu": rate / hardware.peak_flops.of(config.precision),
            "hfu": done / hardware.peak_flops.of(config.precision),
            "run_s": run_s * (1 + reliability.overhead),
            "device_hours": run_s * (1 + reliability.overhead) * processes / 3600,
        },
        "reliability": asdict(reliability) | {"interval_steps": config.checkpoint.interval},
    }


def _stage(config: RunConfig, processes: int, stage: int, hardware: HardwareProfile) -> dict:
    """The simulated step of a stage's first process, and its peak of activations in the other setting of recomputation."""
    rank = first_rank_of_stage(config, processes, stage)
    record = simulate_step(config, processes, rank, hardware.kernels)
    other = "none" if config.parallel.recompute == "full" else "full"
    otherwise = dataclasses.replace(config, parallel=dataclasses.replace(config.parallel, recompute=other))
    activations = {config.parallel.recompute: record.activation_bytes}
    activations[other] = simulate_step(otherwise, processes, rank, hardware.kernels).activation_bytes
    parts = step_parts(record, config, processes, hardware)
    time = step_time(parts, config.num_micro_batches(processes), config.parallel.pipeline)
    return {"record": record, "parts": parts, "time": time, "activations": activations}


def _need(position, stage: dict, hardware: HardwareProfile) -> dict:
    total = position.total_bytes + stage["record"].activation_bytes
    return asdict(position) | {
        "activation_bytes": stage["record"].activation_bytes,
        "activation_bytes_without_recompute": stage["activations"]["none"],
        "activation_bytes_with_recompute": stage["activations"]["full"],
        "total_bytes": total,
        "fits": hardware.fits(total),
    }


def _groups(config: RunConfig) -> dict[str, dict]:
    """The first process' group along each axis: its ranks and the nodes (counted from 0) that they are on."""
    tensor, stages = config.parallel.tensor, config.parallel.pipeline
    data, per_node = config.data_parallel_size(config.cluster.num_processes), config.cluster.processes_per_node
    ranks = {
        "tensor": range(tensor),
        "data": range(0, tensor * data, tensor),
        "pipeline": range(0, tensor * data * stages, tensor * data),
    }
    return {axis: {"ranks": list(group), "nodes": sorted({rank // per_node for rank in group})} for axis, group in ranks.items()}
