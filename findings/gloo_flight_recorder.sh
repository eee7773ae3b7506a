#!/usr/bin/env bash
# torch 2.13.0: what the flight recorder keeps of gloo's collectives cannot be read as one reads NCCL's.
#
# Records of gloo land in torch's generic recorder (`_dump_fr_trace_json`), by default. Of three all_reduces, a send and a receive, and a
# barrier, all of them long finished:
# - `state` still says "scheduled" for each; nothing ever becomes "started" or "completed";
# - the send and the receive are not there at all;
# - `pg_status` says that no collective was ever started: last_started_collective is -1, behind last_completed_collective.
# So a process that hangs under gloo is found by who has enqueued least, not by `state`, and never if it hangs in a transfer.
# Seen on 2026-11-27, Python 3.11, two processes on one machine:
#     recorded: gloo:all_reduce gloo:all_reduce gloo:all_reduce gloo:barrier
#     states: scheduled
#     last started: -1
# Exit code 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }
cat > "$folder/record.py" <<'PYTHON'
import json
import os
import tempfile
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run(rank, store):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for _ in range(3):
        dist.all_reduce(torch.ones(4))
    if rank == 0:
        dist.send(torch.ones(4), 1)
    else:
        dist.recv(torch.ones(4), 0)
    dist.barrier()
    time.sleep(1)
    if rank == 0:
        dump = json.loads(torch._C._distributed_c10d._dump_fr_trace_json(includeCollectives=True, onlyActive=False))
        print("recorded:", *(entry["profiling_name"] for entry in dump["entries"]))
        print("states:", *sorted({entry["state"] for entry in dump["entries"]}))
        print("last started:", dump["pg_status"]["0"]["last_started_collective"], flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    for name in ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(run, (os.path.join(folder, "store"),), nprocs=2)
PYTHON
timeout 120 "$folder/venv/bin/python" "$folder/record.py" 2> "$folder/err.log" | grep -v '^\[Gloo\]' | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED' && echo "as stated"
recorded: gloo:all_reduce gloo:all_reduce gloo:all_reduce gloo:barrier
states: scheduled
last started: -1
EXPECTED
