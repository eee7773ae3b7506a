#!/usr/bin/env bash
# torch 2.13.0, gloo: all_gather_into_tensor refuses the stacked form of its output.
#
# torch's documentation of all_gather_into_tensor names two forms of the output for inputs of shape (2, 8) on two ranks: their concatenation,
# (4, 8), and their stack, (2, 2, 8). reduce_scatter_tensor has the same two forms for its input. gloo takes the first form of both and
# raises a RuntimeError for the second. So code that gathers "one row a rank" and is tested on gloo has to gather a concatenation and view it.
# Seen on 2026-11-27, Python 3.11, two processes on one machine:
#     all_gather_into_tensor, concatenated: ok
#     all_gather_into_tensor, stacked: RuntimeError
#     reduce_scatter_tensor, concatenated: ok
#     reduce_scatter_tensor, stacked: RuntimeError
# Exit code 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }
cat > "$folder/forms.py" <<'PYTHON'
import os
import tempfile
import warnings

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

FORMS = {"concatenated": (4, 8), "stacked": (2, 2, 8)}


def attempt(function, *tensors):
    try:
        function(*tensors)
        return "ok"
    except RuntimeError:
        return "RuntimeError"


def run(rank, store):
    warnings.filterwarnings("ignore")
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for form, shape in FORMS.items():
        answer = attempt(dist.all_gather_into_tensor, torch.empty(shape), torch.ones(2, 8))
        if rank == 0:
            print(f"all_gather_into_tensor, {form}: {answer}", flush=True)
    for form, shape in FORMS.items():
        answer = attempt(dist.reduce_scatter_tensor, torch.empty(2, 8), torch.ones(shape))
        if rank == 0:
            print(f"reduce_scatter_tensor, {form}: {answer}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(run, (os.path.join(folder, "store"),), nprocs=2)
PYTHON
timeout 120 "$folder/venv/bin/python" "$folder/forms.py" 2> "$folder/err.log" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED' && echo "as stated"
all_gather_into_tensor, concatenated: ok
all_gather_into_tensor, stacked: RuntimeError
reduce_scatter_tensor, concatenated: ok
reduce_scatter_tensor, stacked: RuntimeError
EXPECTED
