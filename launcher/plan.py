"""`launcher plan`: what a run will be like, before any node is asked for."""

import argparse
import dataclasses
import json
import warnings
from pathlib import Path

from robustbert.config import ConfigError, RunConfig, load_config


def plan(options: argparse.Namespace) -> int:
    """Print the plan of a configuration. ConfigError where its layout cannot be built."""
    config = with_vocabulary(load_config(options.config, options.overrides))
    warnings.filterwarnings("ignore", module="megatron")  # at its import it warns about all that could be installed
    from robustbert.plan.report import build_plan, describe_plan  # torch: not needed by the other commands

    found = build_plan(config)
    print(json.dumps(found, indent=1) if options.json else describe_plan(config, found))
    return 0


def with_vocabulary(config: RunConfig) -> RunConfig:
    """The configuration with model.vocab_size set: given, or the tokenizer's. ConfigError where neither is there."""
    size = config.model.vocab_size
    if size is None and isinstance(config.data.tokenizer, str):
        if not Path(config.data.tokenizer).exists():
            raise ConfigError(
                f"data.tokenizer ({config.data.tokenizer}) is not there, so the vocabulary's size is not known; give it: "
                "model.vocab_size=50265 (RoBERTa's)"
            )
        from robustbert.data.tokenizer import load_tokenizer

        size = load_tokenizer(config.data.tokenizer).vocab_size
    elif size is None:
        size = config.data.tokenizer.train.vocab_size
    return dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=size))
