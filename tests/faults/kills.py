"""kill -9 of a random process at random moments: each run must end with bitwise the weights of the undisturbed one.

The whole campaign, about ten minutes on two cores:

    python -m tests.faults.kills --number 50 --seed 1
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.faulty_worker import POINTS
from tests.faults.lab import FaultLab

_OF_MAIN = {"before manifest", "before commit", "after commit", "before removal", "amid removal", "after removal"}
_PHASES = {
    "start-up": [point for point in POINTS if point.startswith("start:") and "evaluating" not in point],
    "a step": ["before step", "after backward", "after update"],
    "a save": ["before write", "amid write", "after write"],
    "a commit": ["before manifest", "before commit", "after commit"],
    "a removal": ["before removal", "amid removal", "after removal"],
    "any moment": [None],
}


def draw_faults(number: int, seed: int) -> list[tuple[str, dict]]:
    """(phase, fault) of so many kills, the phases in turn."""
    rng = random.Random(seed)
    faults = []
    for i in range(number):
        phase = list(_PHASES)[i % len(_PHASES)]
        point = rng.choice(_PHASES[phase])
        fault = {"action": "kill", "rank": 0 if point in _OF_MAIN else rng.randrange(2)}
        if point is None:
            fault["after_s"] = round(rng.uniform(0.0, 3.2), 2)
        else:
            times = {"a step": 12, "a save": 6, "a commit": 6, "a removal": 4}.get(phase, 1)
            fault |= {"point": point, "count": rng.randint(1, times)}
        faults.append((phase, fault))
    return faults


def steps_lost(run) -> int:
    """Steps that were computed and had to be computed again."""
    lost, reached = 0, 0
    for record in run.run.metrics():
        lost += max(0, reached - record["step"] + 1)
        reached = record["step"]
    return lost


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    lab = FaultLab(Path(tempfile.mkdtemp(prefix="kills_")))
    wrong, losses, times = [], [], []
    try:
        whole = lab.submit("undisturbed")
        assert whole.finish() == 0, whole.story()
        for number, (phase, fault) in enumerate(draw_faults(options.number, options.seed)):
            started = time.monotonic()
            run = lab.submit(f"kill-{number:03d}", fault)
            exit_code = run.finish(180)
            was_killed = (run.run.path / "fault_done").exists()
            is_equal = exit_code == 0 and run.final_weights() == whole.final_weights()
            losses.append(steps_lost(run))
            times.append(time.monotonic() - started)
            outcome = "equal" if is_equal else "WRONG"
            print(f"{number:3} {phase:10} {fault}: killed {was_killed}, {outcome}, {losses[-1]} steps again", flush=True)
            if not (is_equal and was_killed):
                wrong.append(number)
                print(run.story() if not is_equal else "the process had ended before", flush=True)
    finally:
        lab.close()
    print(f"{options.number} kills, {len(wrong)} not as they should be {wrong}; steps computed again: {sum(losses)} in all, at most")
    print(f"{max(losses)} in a run of 12 with a checkpoint every 2; a run took {statistics.median(times):.1f} s (median)")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
