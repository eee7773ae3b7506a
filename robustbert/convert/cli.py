"""tools/convert: its command line."""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

_EXAMPLE = """examples:
  tools/convert runs/quickstart --to huggingface --output models/quickstart
  tools/convert runs/quickstart/checkpoints/step_00001000 --to fairseq --output models/step-1000
  tools/convert models/quickstart --to robustbert --output models/quickstart-shards
  tools/convert roberta.large --to huggingface --output models/roberta-large --tokenizer gpt2-bpe    # as fairseq released it
  tools/convert models/encoder --to robustbert --output models/mine --new-head    # an encoder that was saved without its head
  tools/convert checkpoints/checkpoint_best.pt --to huggingface --output models/best --tokenizer data-bin --text mine.txt

A folder of Hugging Face's has config.json and safetensors or pytorch_model.bin, under the names of any version or wrapper.
A folder of fairseq has model.pt (or checkpoint_best.pt), dict.txt and GPT-2's encoder.json and vocab.bpe. It carries a next-sentence head as the
classification head next_sentence, and no token types: the first is folded into the positions. Of a model of fairseq other
classification heads are not carried over. What is lost or changed is said in a line each.
"""
_QUIET_FOR_S = 3.0  # a conversion that takes longer tells its stages where no terminal shows them


def main(argv: list[str] | None = None) -> int:
    """Convert and print one line; 2 with one line on standard error where it cannot be done."""
    parser = argparse.ArgumentParser(
        prog="tools/convert",
        description="Convert a model. The result's logits are compared with the source's, on real text and on random "
        "tokens, each side read by its own library, before it counts; more than 1e-4 apart is refused.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source",
        type=Path,
        help="a run (its newest checkpoint), a checkpoint, a folder of Hugging Face's RobertaForMaskedLM, a folder of "
        "fairseq's RobertaModel (model.pt, else the best checkpoint, else the last) or its model file",
    )
    parser.add_argument("--to", required=True, choices=("huggingface", "fairseq", "robustbert"), help="the format to write")
    parser.add_argument("--output", required=True, type=Path, help="the folder to make; it must not exist")
    parser.add_argument("--tokenizer", type=Path, help="the tokenizer's folder, where the source has none beside it")
    parser.add_argument("--text", type=Path, help="a text to compare the logits on; default: the prose inside Python")
    parser.add_argument(
        "--new-head", action="store_true", help="give an encoder without a masked-language-model head a new, untrained one"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the new head's initial weights (default: 1)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args(argv)
    _silence_libraries()
    from robustbert.convert.convert import convert

    progress = _Progress(sys.stderr)
    try:
        done = convert(
            arguments.source,
            arguments.to,
            arguments.output,
            arguments.tokenizer,
            arguments.text,
            progress.show,
            head_seed=arguments.seed if arguments.new_head else None,
        )
    except KeyboardInterrupt:
        progress.clear()
        print(f"tools/convert: interrupted; {arguments.output} was not written", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        progress.clear()
        print(f"tools/convert: error: {error}", file=sys.stderr)
        return 2
    progress.clear()
    if arguments.json:
        print(json.dumps(_report(done)))
        return 0
    for note in done.notes:
        print(f"tools/convert: note: {note}", file=sys.stderr)
    source_reader, result_reader = done.comparison.readers
    print(
        f"{done.source.path} -> {done.output}: {done.num_parameters:,} parameters, largest difference of the logits "
        f"{done.comparison.on_text:.1e} on real text, {done.comparison.on_random_tokens:.1e} on random tokens; "
        f"source read by {source_reader}, result by {result_reader}"
    )
    return 0


def _report(done) -> dict:
    return {
        "source": str(done.source.path),
        "source_format": done.source.format,
        "output": str(done.output),
        "format": done.to,
        "parameters": done.num_parameters,
        "logit_difference": {"text": done.comparison.on_text, "random_tokens": done.comparison.on_random_tokens},
        "read_by": dict(zip(("source", "result"), done.comparison.readers)),
        "notes": list(done.notes),
    }


def _silence_libraries() -> None:
    """Their warnings and progress bars would bury the one line that counts."""
    warnings.filterwarnings("ignore")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


class _Progress:
    """The stage that a conversion is in: one line that is overwritten on a terminal, lines elsewhere if it takes long."""

    def __init__(self, stream):
        self._stream, self._begun_at, self._is_terminal = stream, time.monotonic(), stream.isatty()

    def show(self, stage: str) -> None:
        elapsed_s = time.monotonic() - self._begun_at
        if self._is_terminal:
            self._stream.write(f"\r\x1b[K{stage} ({elapsed_s:.0f} s)")
        elif elapsed_s > _QUIET_FOR_S:
            self._stream.write(f"{stage} ({elapsed_s:.0f} s)\n")
        self._stream.flush()

    def clear(self) -> None:
        if self._is_terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
