"""A process that hangs is found in time, named, its stacks kept, and the run goes on."""

import json

import pytest

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(180)]
TIMEOUT_S = 5


@pytest.mark.parametrize(
    ("action", "point", "words"),
    [
        ("stop", "before step", "gives no sign of life"),
        ("spin", "after backward", "did not start all_reduce number"),
    ],
)
def test_a_hung_process_is_found_and_named(action, point, words, lab, undisturbed):
    fault = {"rank": 1, "action": action, "point": point, "count": 6}
    run = lab.submit(f"hang-{action}", fault, f"fault_tolerance.hang_timeout_s={TIMEOUT_S}")
    assert run.finish() == 0, run.story()
    (hang,) = run.events("hang")
    hung_at = json.loads((run.run.path / "fault_done").read_text())["time"]
    assert hang["time"] - hung_at < TIMEOUT_S + 5
    assert hang["ranks"] == [1] and words in hang["reason"], hang
    if action == "stop":
        assert "is stopped (by a signal)" in hang["reason"]
    stacks = open(hang["stacks"]).read()
    assert "=== rank 0 on" in stacks and "pretrain.py" in stacks and "=== rank 1 on" in stacks
    assert run.final_weights() == undisturbed.final_weights()

