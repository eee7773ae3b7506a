"""`python -m launcher.doctor.all_reduce FOLDER`: one process of the job that measures its own all-reduce.

Started as training is, by the run's scheduler; rank 0 leaves FOLDER/all_reduce.json.
"""

import json
import sys
from pathlib import Path

from launcher.processes import die_with_parent
from launcher.rendezvous import find_job

SIZES_MIB = (1, 16, 64)
TIMEOUT_S = 120


def main(folder: Path) -> None:
    """Join the others, measure every size, leave."""
    die_with_parent()
    job = find_job()
    from robustbert.device import Device
    from robustbert.diagnosis.measures import all_reduce_bytes_per_s

    device = Device.detect(job)
    with device.joined(job, TIMEOUT_S):
        found = {str(size): all_reduce_bytes_per_s(device, size << 20) for size in SIZES_MIB}
    if job.rank == 0:
        record = {"processes": job.world_size, "backend": device.backend, "bytes_per_s_of_mib": found}
        (folder / "all_reduce.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
