"""tools/convert: its command line."""

import argparse
import sys
import warnings
from pathlib import Path

_EXAMPLE = """examples:
  tools/convert runs/quickstart --to huggingface --output models/quickstart
  tools/convert runs/quickstart/checkpoints/step_00001000 --to huggingface --output models/step-1000
  tools/convert models/quickstart --to robustbert --output models/quickstart-shards
"""


def main(argv: list[str] | None = None) -> int:
    """Convert and print one line; 2 with one line on standard error where it cannot be done."""
    parser = argparse.ArgumentParser(
        prog="tools/convert",
        description="Convert a model. The result's logits are compared with the source's before it counts.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="a run, a checkpoint, or a folder of Hugging Face's RobertaForMaskedLM")
    parser.add_argument("--to", required=True, choices=("huggingface", "robustbert"), help="the format to write")
    parser.add_argument("--output", required=True, type=Path, help="the folder to make; it must not exist")
    parser.add_argument("--tokenizer", type=Path, help="the tokenizer's folder, where the source has none beside it")
    arguments = parser.parse_args(argv)
    warnings.filterwarnings("ignore")
    from robustbert.convert.convert import convert

    try:
        done = convert(arguments.source, arguments.to, arguments.output, arguments.tokenizer)
    except (ValueError, OSError) as error:
        print(f"tools/convert: error: {error}", file=sys.stderr)
        return 2
    print(
        f"{done.source} -> {done.output}: {done.num_parameters:,} parameters, "
        f"largest difference of the logits {done.max_logit_difference:.1e}"
    )
    return 0
