"""The work before the first step does not grow with the job beyond its share."""

import pytest

from benchmarks.startup import MEASURED, measure


@pytest.mark.slow
def test_start_up_for_1024_processes_costs_no_more_a_process_than_for_128():
    found = measure((128, 1024), rounds=1)
    assert set(found) == set(MEASURED)
    for name, seconds in found.items():
        print(name, seconds)
        assert seconds[1024] < 2 * 8 * seconds[128] + 0.1, name  # linear for all together is constant for each
        assert seconds[1024] < 20, name
