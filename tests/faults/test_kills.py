"""kill -9: the run goes on by itself and ends as if nothing had happened. The whole campaign is `python -m tests.faults.kills`."""

import pytest

from tests.faults.kills import draw_faults, steps_lost

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(180)]
SAMPLE = draw_faults(5, seed=20)[3:]  # a commit, a removal; start-up, steps and saves are left to the campaign


@pytest.mark.parametrize("number", range(len(SAMPLE)), ids=[phase.replace(" ", "-") for phase, _ in SAMPLE])
def test_a_killed_run_ends_with_bitwise_the_weights_of_the_undisturbed_one(number, lab, undisturbed):
    _, fault = SAMPLE[number]
    run = lab.submit(f"kill-{number}", fault)
    assert run.finish() == 0, run.story()
    assert (run.run.path / "fault_done").exists(), f"{fault} did not happen"
    assert run.final_weights() == undisturbed.final_weights()
    assert steps_lost(run) <= 4, "a checkpoint every 2 steps, one of them perhaps not yet written"
    lost = run.events("rank_lost")
    assert len(lost) == 1 and lost[0]["rank"] == fault["rank"], lost
