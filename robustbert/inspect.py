"""tools/inspect: what a checkpoint or an indexed corpus holds, and whether its files are what was written."""

import argparse
import sys
from pathlib import Path

from robustbert.checkpoint.manifest import CheckpointError, read_manifest, verify
from robustbert.data.corpus import IndexedCorpus
from robustbert.data.errors import DataError
from robustbert.data.tokenizer import load_tokenizer

_EXAMPLE = """examples:
  tools/inspect runs/quickstart/checkpoints/step_00000550 --verify
  tools/inspect runs/quickstart/data/train_0000 --verify --samples 3
"""


def main(argv: list[str] | None = None) -> int:
    """Print what is there; 2 with one line on standard error where it cannot be used, 1 where it is not what was written."""
    parser = argparse.ArgumentParser(
        prog="tools/inspect",
        description="Look into a checkpoint (a folder) or an indexed corpus (the prefix of its .bin and .idx).",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", type=Path, metavar="PREFIX_OR_CHECKPOINT")
    parser.add_argument("--verify", action="store_true", help="read every file and compare it with its checksum")
    parser.add_argument("--samples", type=int, default=0, metavar="N", help="of a corpus: print the first N sentences")
    arguments = parser.parse_args(argv)
    try:
        describe = describe_checkpoint if arguments.target.is_dir() else describe_corpus
        print("\n".join(describe(arguments.target, arguments.samples)))
    except (DataError, CheckpointError, OSError) as error:
        print(f"tools/inspect: error: {error}", file=sys.stderr)
        return 2
    if arguments.verify:
        try:
            verify(arguments.target) if arguments.target.is_dir() else IndexedCorpus(arguments.target).verify()
        except (DataError, CheckpointError) as error:
            print(f"tools/inspect: damaged: {error}", file=sys.stderr)
            return 1
        print("verified: every file is what was written")
    return 0


def describe_checkpoint(folder: Path, num_samples: int = 0) -> list[str]:
    """Lines about a committed checkpoint. CheckpointError where it is none."""
    manifest = read_manifest(folder)
    num_bytes = sum(record["bytes"] for record in manifest.files.values())
    return [
        f"checkpoint   {folder}",
        *(f"{key:12} {value}" for key, value in manifest.state.items()),
        f"layout       {', '.join(f'{axis} {size}' for axis, size in manifest.layout.items())}",
        f"model        {', '.join(f'{key} {value}' for key, value in manifest.config['model'].items())}",
        f"files        {len(manifest.files)}, {num_bytes:,} bytes",
    ]


def describe_corpus(prefix: Path, num_samples: int = 0) -> list[str]:
    """Lines about an indexed corpus, and its first sentences decoded. DataError where it cannot be used."""
    corpus = IndexedCorpus(prefix)
    manifest, lengths = corpus.manifest, corpus.sentence_lengths
    lines = [
        f"corpus       {prefix}",
        f"documents    {manifest.num_documents:,}",
        f"sentences    {manifest.num_sentences:,}, {lengths.mean():.1f} tokens on average, the longest {lengths.max():,}",
        f"tokens       {manifest.num_tokens:,} of {manifest.num_characters:,} characters",
        f"vocabulary   {manifest.vocab_size:,}, tokenizer {corpus.tokenizer_dir} (sha256 {manifest.tokenizer_sha256[:12]})",
    ]
    if num_samples:
        tokenizer = load_tokenizer(corpus.tokenizer_dir)
        lines += ["", *(repr(tokenizer.decode(corpus.sentence(i))) for i in range(min(num_samples, len(corpus))))]
    return lines
