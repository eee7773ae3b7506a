"""Processes that die, raise, stop and loop, on the GPU, through the real launcher: the laboratory of tests/faults."""

import json

from benchmarks.gpu.context import Context
from benchmarks.gpu.prepare import optional
from robustbert.checkpoint.manifest import committed_checkpoints
from robustbert.config import ModelConfig, TrainConfig
from tests.faults.lab import FaultLab, FaultRun

HANG_TIMEOUT_S = 5
_ENDED_WITHIN_S = 15.0  # an exception, until its job is restarted
_HANG_FOUND_WITHIN_S = HANG_TIMEOUT_S + 10.0
_LAST_STEP = 12
FAULTS = {
    "kill": {"action": "kill", "point": "after backward", "count": 6},
    "raise": {"action": "raise", "point": "before step", "count": 6},
    # Slow enough that the supervisor has heard of a step: until then fault_tolerance.startup_timeout_s is the limit.
    "stop": {"action": "stop", "point": "before step", "count": 6, "slow_s": 0.4},
    "spin": {"action": "spin", "point": "after backward", "count": 6, "slow_s": 0.4},
}


def run(context: Context) -> str:
    """Every fault in the last rank of a job with one process a card, each beside the undisturbed run."""
    lab = FaultLab(context.folder)
    names = ("kill", "stop") if context.rehearse else tuple(FAULTS)
    try:
        return inject(context, lab, context.num_processes, names)
    finally:
        lab.close()


def inject(context: Context, lab: FaultLab, num_processes: int, names: tuple[str, ...], prefix: str = "") -> str:
    """Run the undisturbed job and one a fault; a check each. Names of runs and checks begin with the prefix."""
    overrides = [f"cluster.processes_per_node={num_processes}", f"fault_tolerance.hang_timeout_s={HANG_TIMEOUT_S}"]
    overrides += optional(ModelConfig, "model.compile=false")  # nothing to do with faults, and every start would compile
    deterministic = optional(TrainConfig, "train.deterministic=true")
    overrides, is_deterministic = [*overrides, *deterministic], bool(deterministic)
    whole = lab.submit(f"{prefix}undisturbed", None, *overrides)
    if whole.finish(context.left_s()):
        raise RuntimeError(f"the undisturbed run failed: {_last_words(whole)}")
    texts = []
    for name in names:
        fault = FAULTS[name] | {"rank": num_processes - 1}
        found = lab.submit(f"{prefix}{name}", fault, *overrides)
        code = found.finish(context.left_s())
        texts.append(_judge(context, f"{prefix}{name}", found, code, whole, is_deterministic, num_processes))
    return f"{num_processes} process(es): {'; '.join(texts)}"


def _judge(
    context: Context, name: str, found: FaultRun, code: int, whole: FaultRun, is_deterministic: bool, num_processes: int
) -> str:
    """A fault passes if the run finished, was told of in time and, deterministic, has bitwise the undisturbed weights."""
    done = found.run.path / "fault_done"
    injected_at = json.loads(done.read_text())["time"] if done.exists() else None
    told = next(
        (e for e in found.events("hang", "rank_lost", "failed", "restarted") if injected_at and e["time"] >= injected_at), None
    )
    restarts = len(found.events("restarted"))
    delay_s = told["time"] - injected_at if told else None
    equal = code == 0 and weights(found) == weights(whole)
    is_hang = name.endswith(("stop", "spin"))
    passed = code == 0 and told is not None and restarts == 1
    passed &= delay_s is not None and delay_s <= (_HANG_FOUND_WITHIN_S if is_hang else _ENDED_WITHIN_S)
    if is_hang:
        hangs = found.events("hang")
        passed &= bool(hangs) and (num_processes - 1) in hangs[0]["ranks"]
        words = f"rank {hangs[0]['ranks']}: {hangs[0]['reason']}" if hangs else "not named"
    else:
        words = told.get("reason") or told["event"] if told else "nothing told"
        if name.endswith("raise"):
            passed &= "broken on demand" in words  # the error itself, not what it did to others
    if is_deterministic:
        passed &= equal
    context.check(
        name,
        passed,
        exit_code=code,
        told_after_s=delay_s,
        restarts=restarts,
        weights_equal=equal,
        words=words,
        must_be_equal=is_deterministic,
    )
    if not passed:
        print(found.story(), flush=True)
    after = f"told after {delay_s:.1f} s" if delay_s is not None else "not told"
    return f"{name} {after}, weights {'equal' if equal else 'differ'}" if code == 0 else f"{name}: exit code {code}"


def weights(run: FaultRun) -> dict:
    """Checksums of the last checkpoint's shards; empty where the run did not get there."""
    newest = committed_checkpoints(run.run.checkpoints)
    manifest = json.loads((newest[-1] / "MANIFEST.json").read_text()) if newest else {"state": {"step": 0}, "files": {}}
    if manifest["state"]["step"] != _LAST_STEP:
        return {}
    return {name: record for name, record in manifest["files"].items() if name.endswith((".bin", "index.json"))}


def _last_words(run: FaultRun) -> str:
    lines = [line for line in run.output.splitlines() if line.strip()]
    return lines[-1] if lines else "nothing was printed"
