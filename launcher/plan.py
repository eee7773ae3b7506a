"""`launcher plan`: what a run will be like, before any node is asked for."""

import argparse
import dataclasses
import json
import sys
import warnings
from itertools import islice
from pathlib import Path

from launcher.processes_per_node import load_run_config
from robustbert.config import ConfigError, RunConfig

ROBERTA_VOCAB_SIZE = 50265
_SHOWN = 12  # layouts of a search
_WHOLE = 3  # of them simulated in whole


def plan(options: argparse.Namespace) -> int:
    """Print the plan of a configuration. 1 where it does not fit the device, ConfigError where its layout cannot be built."""
    asked = load_run_config(options.config, options.overrides)
    config = with_vocabulary(asked)
    if asked.model.vocab_size is None and isinstance(asked.data.tokenizer, str) and not Path(asked.data.tokenizer).exists():
        size = config.model.vocab_size
        print(f"data.tokenizer ({asked.data.tokenizer}) is not there: a vocabulary of {size:,} is assumed (model.vocab_size=N)", file=sys.stderr)
    warnings.filterwarnings("ignore", module="megatron")  # at its import it warns about all that could be installed
    from robustbert.plan import report, text  # torch: not needed by the other commands
    from robustbert.hardware import load_profile
    from robustbert.plan.reliability import NODE_DAYS_BETWEEN_FAILURES

    node_days = NODE_DAYS_BETWEEN_FAILURES if options.node_days is None else options.node_days
    if node_days <= 0:
        raise ConfigError(f"--node-days must be above 0, it is {node_days:g}")
    hardware = load_profile(options.hardware)
    say = _progress()
    if options.search:
        return _search(config, hardware, node_days, options.json, say)
    found = report.build_plan(config, hardware, node_days, say)
    say("")
    print(json.dumps(found, indent=1) if options.json else text.describe_plan(config, found))
    if not found["fits"]:
        print(f"launcher: error: {_nearest_that_fits(config, hardware, found, say)}", file=sys.stderr)
        return 1
    return 0


def with_vocabulary(config: RunConfig) -> RunConfig:
    """The configuration with model.vocab_size set: given, or the tokenizer's; where neither is there RoBERTa's."""
    size = config.model.vocab_size
    if size is None and isinstance(config.data.tokenizer, str):
        if Path(config.data.tokenizer).exists():
            from robustbert.data.tokenizer import load_tokenizer

            size = load_tokenizer(config.data.tokenizer).vocab_size
        else:
            size = ROBERTA_VOCAB_SIZE
    elif size is None:
        size = config.data.tokenizer.train.vocab_size
    return dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=size))


def _search(config: RunConfig, hardware, node_days: float, as_json: bool, say) -> int:
    from robustbert.plan import report, search, text

    candidates = search.search_layouts(config, hardware, say)
    whole = (
        (candidate, report.build_plan(search.with_candidate(config, candidate), hardware, node_days, say))
        for candidate in candidates
        if candidate.fits
    )
    checked = list(islice((pair for pair in whole if pair[1]["fits"]), _WHOLE))
    say("")
    if not checked:
        raise ConfigError(
            f"no layout of {config.cluster.num_processes} processes fits {hardware.name}; take more processes, or a smaller model"
        )
    best, plan_of_best = min(checked, key=lambda pair: pair[1]["projected"]["step_s"])
    if as_json:
        rows = [dataclasses.asdict(c) | {"step_s": c.time.total_s, "overrides": c.overrides} for c in candidates]
        print(json.dumps({"candidates": rows, "best": plan_of_best, "overrides": best.overrides}, indent=1))
        return 0
    print(text.describe_search(candidates, _SHOWN))
    print(f"\nthe best of the first {len(checked)}, simulated in whole: {' '.join(best.overrides)}\n")
    print(text.describe_plan(search.with_candidate(config, best), plan_of_best))
    return 0


def _nearest_that_fits(config: RunConfig, hardware, found: dict, say) -> str:
    from robustbert.plan.search import nearest_that_fits

    largest = max(row["total_bytes"] for row in found["positions"])
    room = hardware.memory_bytes - hardware.reserved_bytes
    words = f"this does not fit: a process needs {largest / 2**30:.1f} GiB and {hardware.name} has {room / 2**30:.1f} for it"
    nearest = nearest_that_fits(config, hardware, say)
    say("")
    if nearest is None:
        return f"{words}; no layout of {config.cluster.num_processes} processes fits, take more of them"
    return f"{words}; the nearest layout that fits: {' '.join(nearest.overrides)}"


def _progress():
    """What is being done, on one line of a terminal that is wiped afterwards; nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda words: None
    return lambda words: print(f"\r\033[K{words}", end="", file=sys.stderr, flush=True)
