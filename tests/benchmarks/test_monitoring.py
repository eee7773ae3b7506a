"""A real Prometheus finds every exporter of a job and scrapes them all."""

import shutil
import threading

import pytest

from benchmarks.monitoring_scale import SimulatedJob, watch_with_prometheus

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(150)]


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus (Debian: prometheus)")
def test_prometheus_finds_and_scrapes_every_exporter(tmp_path):
    num_ranks, per_node = 128, 8
    stop = threading.Event()
    with SimulatedJob(tmp_path, num_ranks, per_node) as job:
        feeder = threading.Thread(target=job.feed_until, args=(stop,), daemon=True)
        feeder.start()
        scraped = watch_with_prometheus(job, tmp_path, interval_s=3, num_scrapes=3)
        stop.set()
        feeder.join()
        assert job.targets_file.exists()
    assert not job.targets_file.exists(), "a run that has ended is not scraped"
    assert scraped.num_targets == 1 + num_ranks // per_node
    assert scraped.num_failed == 0 and scraped.num_dropped == 0
    in_nodes = num_ranks * (1 + 5 + 1 + 3 + 1)
    assert scraped.num_series == scraped.supervisor_samples + in_nodes
    assert scraped.num_series < 200_000 / (1024 / num_ranks)
