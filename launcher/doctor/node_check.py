"""`python -m launcher.doctor.node_check CONFIG FOLDER CWD MEGABYTES TIMEOUT_S`: what one node is and can do.

Prints two lines of JSON: its clock at the start, and at the end the report of measure_node.
"""

import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from robustbert.json_lines import say_error


def measure_node(config_file: Path, folder: Path, megabytes: int) -> dict:
    """Rates, versions, free space, and what is wrong (`faults`) of this node. megabytes: of the disk's and memory's test.

    `rates` has the slowest device's; `devices` has all. What cannot be measured is a fault and ends nothing else.
    """
    from robustbert.config import load_config

    config = load_config(config_file)
    warnings.filterwarnings("ignore", module="megatron")
    from robustbert.data.prepare import check_sources
    from robustbert.diagnosis import measures
    from robustbert.diagnosis.space import find_lack_of_space
    from robustbert.optim.apex import pairs_to_compare

    faults: list[str] = []

    def attempt(what: str, run: Callable, *arguments):
        say_error(f"while measuring {what}")  # the last one is shown where no answer comes
        try:
            return run(*arguments)
        except Exception as error:
            faults.append(f"{what}: {' '.join(str(error).split()) or type(error).__name__}")

    attempt("the data cannot be read", check_sources, config.data)  # reads the tokenizer, looks for every corpus
    found_devices = measures.find_devices()
    devices = [
        attempt(f"device {number}", measures.measure_device, device, config.precision, megabytes << 20)
        for number, device in enumerate(found_devices)
    ]
    rates = measures.slowest_rates([device for device in devices if device])
    disk_rate = attempt(f"{folder} cannot be written", measures.disk_bytes_per_s, folder, megabytes << 20)
    if disk_rate:
        rates["disk_bytes_per_s"] = disk_rate
    free = measures.free_bytes(folder)
    faults += [lack] if (lack := find_lack_of_space(_with_vocabulary(config), free["disk"])) else []
    faults += [fault] if (fault := measures.find_lack_of_devices(found_devices, config.cluster)) else []
    optimizer = attempt("Apex's optimizers", lambda: measures.compare_apex(pairs_to_compare(), found_devices[0]))
    if optimizer and optimizer["fault"]:
        faults.append(optimizer["fault"])
    return {
        "devices": devices,
        "optimizer": optimizer and optimizer["text"],
        "versions": measures.versions(found_devices[0]),
        "rates": rates,
        "free_bytes": free,
        "faults": faults,
        "clock": time.time(),
    }


def _with_vocabulary(config):
    from launcher.plan import with_vocabulary

    try:
        return with_vocabulary(config)
    except (ValueError, OSError):  # the tokenizer cannot be read: told with the data
        return config


def main(config_file: Path, folder: Path, working_folder: str, megabytes: int, timeout_s: int) -> None:
    """Measure this node from where the command was given; who asks gives up after timeout_s, and so does this process."""
    signal.alarm(timeout_s)
    print(json.dumps({"clock": time.time()}), flush=True)
    if not config_file.exists():
        sys.exit(f"{folder} is not seen there: run.dir has to lie on a file system that all nodes share")
    try:
        os.chdir(working_folder)  # relative paths of the configuration start in it; a remote shell starts elsewhere
    except OSError as error:
        sys.exit(f"the folder {working_folder} is not seen there ({error.strerror}), where the configuration's relative paths start")
    try:
        print(json.dumps(measure_node(config_file, folder, megabytes)), flush=True)
    except ValueError as error:  # a GPU that this torch is not built for
        sys.exit(" ".join(str(error).split()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
