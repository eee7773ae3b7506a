"""The command line of tools/inspect."""

import argparse
import json
import sys
from pathlib import Path

from robustbert.checkpoint.manifest import CheckpointError, verify
from robustbert.checkpoint.retention import held_for_reading
from robustbert.config import ConfigError, MaskingConfig
from robustbert.data.blocks.packing import FORMATS
from robustbert.data.corpus import IndexedCorpus
from robustbert.data.errors import DataError
from robustbert.data.open_corpus import Corpus, is_foreign
from robustbert.data.shards import find_prefixes, holds_data
from robustbert.data.tokenizer import Tokenizer, load_tokenizer
from robustbert.inspection.checkpoint import checkpoint_facts, describe_checkpoint
from robustbert.inspection.corpus import corpus_facts, describe_corpus, describe_together, verify_corpus
from robustbert.inspection.foreign import describe_foreign, foreign_facts, opened_for_inspection, verify_foreign
from robustbert.inspection.samples import KEPT, MASKED, REPLACED, SPECIAL, decoded_samples

_EXAMPLE = """examples:
  tools/inspect runs/quickstart/data/train_0000
  tools/inspect runs/quickstart/data/train_0000 --samples 2 --format segment-pair --sequence-length 128
  tools/inspect 'data/cc-news-*' --verify
  tools/inspect runs/quickstart/checkpoints/step_00000550 --verify
  tools/inspect megatron/books_text_sentence --tokenizer gpt2-bpe --verify

of samples: [word→<mask>] is masked, [word→other] replaced by a random token, [word] predicted and left as it is.
"""
_STYLES = {SPECIAL: "dim", MASKED: "bold yellow", REPLACED: "bold red", KEPT: "bold green"}


def main(arguments: list[str] | None = None) -> int:
    """Print what is there; 2 with one line on standard error where it cannot be used, 1 where it is not what was written."""
    options = _parser().parse_args(arguments)
    try:
        if all(Path(target).is_dir() and not holds_data(Path(target)) for target in options.targets):
            return _inspect_checkpoints([Path(target) for target in options.targets], options)
        return _inspect_corpora(options)
    except (DataError, CheckpointError, ConfigError, OSError) as error:
        print(f"tools/inspect: error: {error}", file=sys.stderr)
        return 2


def _inspect_checkpoints(folders: list[Path], options: argparse.Namespace) -> int:
    if options.json:
        _print_json([checkpoint_facts(folder) for folder in folders])
    else:
        print("\n\n".join("\n".join(describe_checkpoint(folder)) for folder in folders))
    for folder in folders if options.verify else ():
        try:
            with held_for_reading(folder):
                verify(folder)
        except CheckpointError as error:
            return _damaged(error)
        print(f"{folder}: verified, every file is what was written", file=_out(options))
    return 0


def _inspect_corpora(options: argparse.Namespace) -> int:
    prefixes = [prefix for target in options.targets for prefix in find_prefixes(target)]
    foreign = [prefix for prefix in prefixes if is_foreign(prefix)]
    if foreign and len(foreign) < len(prefixes):
        raise DataError(f"{foreign[0]} is not of tools/preprocess, others are; inspect them one by one")
    if foreign:
        return _inspect_foreign(foreign, options)
    corpora = [IndexedCorpus(prefix) for prefix in prefixes]
    if options.json:
        _print_json([corpus_facts(corpus) for corpus in corpora])
    elif options.samples:
        for corpus in corpora:
            _show_samples(corpus, options)
    else:
        print("\n".join(describe_corpus(corpora[0]) if len(corpora) == 1 else describe_together(corpora)))
    for corpus in corpora if options.verify else ():
        try:
            verify_corpus(corpus, lambda line: print(f"{corpus.prefix}: {line}", file=_out(options)))
        except DataError as error:
            return _damaged(error)
        print(f"{corpus.prefix}: verified, everything is what was prepared", file=_out(options))
    return 0


def _inspect_foreign(prefixes: list[Path], options: argparse.Namespace) -> int:
    tokenizer = None if options.tokenizer is None else load_tokenizer(options.tokenizer)
    if tokenizer is None and (options.verify or options.samples):
        raise DataError(f"{prefixes[0]}: was not made by tools/preprocess; --verify and --samples need --tokenizer DIR, the one that made it")
    told = tokenizer, options.tokenizer
    if options.json:
        _print_json([foreign_facts(prefix, *told) for prefix in prefixes])
    elif options.samples:
        for prefix in prefixes:
            with opened_for_inspection(prefix, *told) as corpus:
                _show_samples(corpus, options, tokenizer)
    else:
        print("\n\n".join("\n".join(describe_foreign(prefix, *told)) for prefix in prefixes))
    for prefix in prefixes if options.verify else ():
        try:
            verify_foreign(prefix, *told, lambda line: print(f"{prefix}: {line}", file=_out(options)))
        except DataError as error:
            return _damaged(error)
        print(f"{prefix}: verified", file=_out(options))
    return 0


def _show_samples(corpus: Corpus, options: argparse.Namespace, tokenizer: Tokenizer | None = None) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    masking = MaskingConfig(strategy="static" if options.static else "dynamic", whole_word=options.whole_word)
    shown = decoded_samples(
        corpus, options.samples, options.format, options.sequence_length, masking, options.epoch, options.seed, tokenizer
    )
    for counts, parts in shown:
        console.print(Text(counts, "bold"))
        console.print(Text.assemble(*((text, _STYLES.get(kind, "")) for kind, text in parts)), "")


def _print_json(facts: list[dict]) -> None:
    print(json.dumps(facts[0] if len(facts) == 1 else facts, indent=1))


def _out(options: argparse.Namespace):
    return sys.stderr if options.json else sys.stdout


def _damaged(error: Exception) -> int:
    print(f"tools/inspect: damaged: {error}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/inspect",
        description="Look into checkpoints (folders) or indexed corpora (the prefix of their .bin and .idx), ours or others'. Writes nothing.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("targets", nargs="+", metavar="PREFIX_OR_CHECKPOINT", help="of a corpus in parts: a pattern in quotes")
    add("--verify", action="store_true", help="read every file and compare it with what was written")
    add("--tokenizer", metavar="DIR", help="of indexed data of Megatron-LM, fairseq or `datasets`: the tokenizer that made the ids")
    add("--json", action="store_true", help="the facts for a script")
    add("--samples", type=_not_negative, default=0, metavar="N", help="of a corpus: the first N samples, as the model sees them")
    samples = parser.add_argument_group("of samples")
    samples.add_argument(
        "--format", choices=FORMATS, default=FORMATS[0], metavar="FORMAT", help=f"data.format: {', '.join(FORMATS)}"
    )
    samples.add_argument("--sequence-length", type=_not_negative, default=512, metavar="S", help="data.sequence_length (512)")
    samples.add_argument("--whole-word", action="store_true", help="data.masking.whole_word")
    samples.add_argument("--static", action="store_true", help="data.masking.strategy: static")
    samples.add_argument("--epoch", type=_not_negative, default=0, metavar="E", help="the epoch, from 0 on")
    samples.add_argument("--seed", type=_not_negative, default=1, metavar="N", help="run.seed (1)")
    return parser


def _not_negative(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, it is {text!r}")
    return int(text)
