"""`python -m launcher.doctor.node_check CONFIG FOLDER MEGABYTES`: what one node is and can do, as one line of JSON."""

import json
import sys
import time
import warnings
from pathlib import Path

from robustbert.config import load_config


def measure_node(config_file: Path, folder: Path, megabytes: int) -> dict:
    """Rates, versions, free space, and what is wrong (`faults`) of this node. megabytes: of the disk's and memory's test."""
    config = load_config(config_file)
    warnings.filterwarnings("ignore", module="megatron")
    from robustbert.data.prepare import check_sources
    from robustbert.diagnosis import measures
    from robustbert.device import Device
    from robustbert.job import Job
    from robustbert.optim.fused_adam import FusedAdam

    device, faults = Device.detect(Job()), []
    try:
        check_sources(config.data)  # reads the tokenizer, looks for every corpus
    except (ValueError, OSError) as error:
        faults.append(f"the data cannot be read: {' '.join(str(error).split())}")
    rates = {
        "matmul_flops_per_s": measures.matmul_flops_per_s(device, config.precision, 4096 if device.is_cuda else 1024),
        "memory_bytes_per_s": measures.memory_bytes_per_s(device, megabytes << 20),
    }
    try:
        rates["disk_bytes_per_s"] = measures.disk_bytes_per_s(folder, megabytes << 20)
    except OSError as error:
        faults.append(f"{folder} cannot be written: {error.strerror}")
    apex = measures.find_apex_adam()
    if apex is not None and device.is_cuda:
        difference = measures.optimizers_differ_by(apex, FusedAdam, device)
        if difference > 1e-3:
            faults.append(f"Apex's FusedAdam gives other weights than torch's: {difference:.1e} of the update")
    return {
        "device": str(device.torch_device),
        "versions": measures.versions(device),
        "rates": rates,
        "free_bytes": measures.free_bytes(folder),
        "faults": faults,
        "clock": time.time(),
    }


if __name__ == "__main__":
    print(json.dumps(measure_node(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
