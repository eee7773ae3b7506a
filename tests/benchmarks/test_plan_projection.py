"""The comparison of projected and real steps: what is taken of several processes and rounds, and the table."""

from benchmarks.plan_projection import WARM_UP, Layout, StepClock, as_lines, best_rates


def test_of_two_processes_the_slower_counts_and_of_the_rounds_the_best():
    rounds = [
        [{"memory_bytes_per_s": 10.0, "operator_s": 2.0}, {"memory_bytes_per_s": 8.0, "operator_s": 3.0}],
        [{"memory_bytes_per_s": 9.0, "operator_s": 5.0}, {"memory_bytes_per_s": 9.5, "operator_s": 1.0}],
    ]
    assert best_rates(rounds) == {"memory_bytes_per_s": 9.0, "operator_s": 3.0}


def test_a_step_lasts_from_one_wait_for_data_to_the_next():
    clock = StepClock()
    for step in range(WARM_UP + 3):
        for phase in ("waiting for data", "forward and backward", "updating the weights"):
            clock.mark(phase, step)
    assert len(clock.steps()) == 2 and all(0 <= processor <= wall + 0.01 for wall, processor in clock.steps())


def test_the_table_has_the_medians_and_their_ratio():
    layouts = [Layout("one", None, 1.0, [9.0, 5.0, 7.0], [2.0, 1.0, 4.0]), Layout("two", None, 3.0, [3.0], [3.0])]
    lines = as_lines(layouts, {"matmul_flops.fp32": 8.0e10})
    assert lines[1].split() == ["one", "1.000", "2.000", "7.000", "0.50"] and lines[3] == "median ratio: 0.75"
    assert lines[-1].split() == ["matmul_flops.fp32", "8e+10", "8.8e+10"]
