"""The stages, the most telling first: which function each runs, the least time it is worth starting with, and its limit."""

from dataclasses import dataclass, field

PREPARE = "prepare"


@dataclass(frozen=True)
class Stage:
    """One process of the script. group: the JSON file of its numbers; alone: nothing else runs meanwhile."""

    name: str
    group: str
    target: str  # module:function, called with a Context
    least_s: float  # with less time left it is skipped
    limit_s: float  # then its processes are killed
    alone: bool = False
    grows: bool = False  # makes use of more time than its limit, where the others leave some


def _check(name: str, module: str, least_s: float, limit_s: float) -> Stage:
    return Stage(name, "check", f"benchmarks.gpu.{module}", least_s, limit_s)


def _alone(name: str, group: str, module: str, least_s: float, limit_s: float, grows: bool = False) -> Stage:
    return Stage(name, group, f"benchmarks.gpu.{module}", least_s, limit_s, alone=True, grows=grows)


STAGES = (
    Stage(PREPARE, "check", "benchmarks.gpu.prepare:run", 10, 150, alone=True),
    _check("fp32", "numerics:compare_with_cpu", 20, 100),
    _check("precision", "numerics:compare_precisions", 20, 120),
    _check("kernels", "kernels:run", 15, 120),
    _check("quickstart", "commands:quickstart", 30, 120),
    _check("resume", "commands:resume", 40, 180),
    _check("faults", "faults:run", 40, 120),
    _check("checkpoint", "checkpoints:run", 25, 90),
    _check("memory", "planned:run", 25, 90),
    _check("tests", "commands:gpu_tests", 20, 120),
    _alone("rates", "speed", "rates:run", 8, 30),
    _alone("speed-base", "speed", "speed:base", 25, 90, grows=True),
    _alone("speed-large", "speed", "speed:large", 25, 70, grows=True),
    _alone("peers", "speed", "peers:run", 30, 90, grows=True),
    _alone("profile", "profile", "step_profile:run", 20, 50),
    _alone("sharding", "sharding", "sharding:run", 30, 100),
    _alone("learn", "learn", "learn:run", 60, 60, grows=True),
)
GROUPS = tuple(dict.fromkeys(stage.group for stage in STAGES))


def limit_of(stage: Stage, waiting: list[Stage], left_s: float) -> float:
    """Seconds that a stage may take, when `waiting` come after it: its limit, and of what all leave its share if it grows."""
    surplus = left_s - stage.limit_s - sum(other.limit_s for other in waiting)
    if not stage.grows or surplus <= 0:
        return min(stage.limit_s, left_s)
    return stage.limit_s + surplus / sum(other.grows for other in [stage, *waiting])


class UnknownStage(ValueError):
    """A name that is neither a stage nor a group."""


def choose(names: str | None) -> list[Stage]:
    """The stages of a comma-separated list of stages and groups, in their own order; `prepare` always comes first.

    None means all of them.
    """
    if names is None:
        return list(STAGES)
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    known = {stage.name for stage in STAGES} | set(GROUPS)
    if unknown := sorted(wanted - known):
        raise UnknownStage(
            f"no stage or group {', '.join(unknown)}; there are {', '.join(s.name for s in STAGES)}; groups: {', '.join(GROUPS)}"
        )
    return [stage for stage in STAGES if stage.name == PREPARE or stage.name in wanted or stage.group in wanted]


@dataclass
class Outcome:
    """How a stage ended. result: ok, failed (a check), error, killed (its time limit), skipped."""

    stage: Stage
    result: str
    text: str  # one line: the figure, or what went wrong
    seconds: float = 0.0
    values: dict = field(default_factory=dict)
