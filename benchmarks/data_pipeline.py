#!/usr/bin/env python3
"""The data pipeline beside its peers, on the same text in one run: preparing text, masked batches, memory of shards.

Everything runs on one core, in alternating rounds; printed are medians and their ratios. Peers: the tokenizers library's
own encode_batch; Hugging Face's DataCollatorForLanguageModeling over a tokenised data set; fairseq's MaskTokensDataset
where fairseq is installed.
"""

import argparse
import gzip
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.fairseq_peer import fairseq_batches  # noqa: E402
from benchmarks.records import write_record  # noqa: E402
from robustbert.config import CorpusConfig, DataConfig, MaskingConfig, TrainConfig  # noqa: E402
from robustbert.data.batches import build_train_batches  # noqa: E402
from robustbert.data.corpus import IndexedCorpus, read_manifest  # noqa: E402
from robustbert.data.preparation.indexing import prepare_corpus  # noqa: E402
from robustbert.data.prepare import PreparedCorpus, PreparedData  # noqa: E402
from robustbert.data.text.readers import find_source, take_shard  # noqa: E402
from robustbert.data.tokenizer import load_tokenizer  # noqa: E402

SEQUENCE_LENGTH, MICRO_BATCH_SIZE = 512, 32
FORMATS = ("full-sentences", "doc-sentences", "segment-pair", "sentence-pair")
FAIRSEQ = "fairseq, tensors in memory"
NUM_SHARDS = 64
_EXAMPLE = """example:
  pip install '.[benchmarks]'
  benchmarks/data_pipeline.py --text books.txt.gz --tokenizer gpt2-bpe --record benchmarks/records/2026-01-31_data_pipeline.md
"""
# Reads every block of the corpora once, in a process of its own, and says how much memory that took.
_READ_THROUGH = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from benchmarks.data_pipeline import open_batches
import psutil
batches = open_batches(Path(sys.argv[2]), [Path(prefix) for prefix in sys.argv[4:]], "full-sentences")
for step in range(int(sys.argv[3])):
    batches.micro_batches(step)
memory = psutil.Process().memory_full_info()
print(memory.rss / 1e6, memory.uss / 1e6)
"""


def main(arguments: list[str] | None = None) -> int:
    """Run all parts, print them, and with --record write them down."""
    options = _parser().parse_args(arguments)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    lines = [f"text: {options.text.name}, {options.rounds} alternating rounds, one core, blocks of {SEQUENCE_LENGTH}", ""]
    show = _Table(lines)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        tokenizer = load_tokenizer(options.tokenizer)
        tokenizer.save(folder / "tokenizer")
        compare_preparation(options, folder, tokenizer, show)
        compare_batches(options, folder, tokenizer, show)
        compare_shards(options, folder, tokenizer, show)
    if options.record:
        command = f"benchmarks/data_pipeline.py --text {options.text.name} --rounds {options.rounds} --seconds {options.seconds:g}"
        libraries = ("torch", "tokenizers", "transformers", "datasets", "fairseq", "numpy")
        command += f" --copies {options.copies}"
        write_record(options.record, "Data pipeline", command, ", of which one is used", libraries, lines)
    return 0


def compare_preparation(options, folder: Path, tokenizer, show) -> None:
    """Raw file to indexed data, against encode_batch on the same paragraphs; then the peak memory of several copies."""
    open_text = gzip.open if options.text.suffix == ".gz" else open
    with open_text(options.text, "rt", encoding="utf-8") as file:
        text = file.read()
    paragraphs = [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]

    def encode():
        for start in range(0, len(paragraphs), 1000):
            tokenizer.encode_batch(paragraphs[start : start + 1000])

    def prepare():
        prepare_corpus([find_source(str(options.text))], tokenizer, folder / "tokenizer", folder / "whole", overwrite=True)

    library, ours = alternate(options.rounds, encode, prepare)
    show.title("preparing text: raw file to indexed data", "MB/s")
    show("tokenizers' encode_batch alone, text in memory", len(text) / 1e6 / library)
    show("robustbert, file to indexed data", len(text) / 1e6 / ours, library / ours, bar=0.9)
    del text, paragraphs
    for copies in sorted({1, options.copies}):
        links = [folder / f"copy_{i}{''.join(options.text.suffixes)}" for i in range(copies)]
        for link in links:
            if not link.exists():
                link.symlink_to(options.text.resolve())
        command = [sys.executable, ROOT / "tools" / "preprocess", "--input", *links, "--tokenizer", folder / "tokenizer"]
        peak = peak_megabytes([*command, "--output", folder / "copies", "--workers", "2", "--overwrite"])
        show(f"peak memory of tools/preprocess, all processes, the text {copies} times over (MB)", peak)
    show.end()


def compare_batches(options, folder: Path, tokenizer, show) -> None:
    """Masked micro-batches of every format against Hugging Face's collator over the same tokens, shuffled."""
    prefixes = [folder / "whole"]
    ours = {name: open_batches(folder / "tokenizer", prefixes, name) for name in FORMATS}
    whole_words = MaskingConfig(whole_word=True)
    ours["full-sentences, whole words"] = open_batches(folder / "tokenizer", prefixes, "full-sentences", whole_words)
    peers = peer_loaders(folder, tokenizer)
    runs = [OurRun(batches, options.seconds) for batches in ours.values()]
    runs += [LoaderRun(loader, options.seconds) for loader in peers.values()]
    rates = [[] for _ in runs]
    for _ in range(options.rounds):
        for run, rate in zip(runs, rates):
            rate.append(run())
    rates = dict(zip([*ours, *peers], map(statistics.median, rates)))
    fastest = max(rates[name] for name in peers)
    show.title("packed and masked batches, one core", "million tokens/s")
    for name in peers:
        show(name, rates[name] / 1e6)
    for name in ours:
        show(f"robustbert, {name}", rates[name] / 1e6, rates[name] / fastest, bar=5 if name == FORMATS[0] else None)
    if FAIRSEQ not in peers:
        show.note("fairseq is not installed: its MaskTokensDataset was not run")
    show.end()


def compare_shards(options, folder: Path, tokenizer, show) -> None:
    """Memory of a process that reads the text from one corpus and from NUM_SHARDS of them, if it has as many documents."""
    num_shards = min(NUM_SHARDS, read_manifest(folder / "whole").num_documents)
    shards = []
    for number in range(num_shards):
        sources = take_shard([find_source(str(options.text))], number, num_shards)
        prepare_corpus(sources, tokenizer, folder / "tokenizer", folder / f"shard_{number:02d}", overwrite=True)
        shards.append(folder / f"shard_{number:02d}")
    show.title("memory of one process that has read as many batches", "MB")
    sizes = []
    for prefixes in ([folder / "whole"], shards):
        open_batches(folder / "tokenizer", prefixes, "full-sentences").close()  # the blocks are built once, not measured
        arguments = [ROOT, folder / "tokenizer", options.rounds * 3, *prefixes]
        done = subprocess.run(
            [sys.executable, "-c", _READ_THROUGH, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True
        )
        sizes.append([float(size) for size in done.stdout.split()])
        show(f"{len(prefixes)} corpora of the same text, resident", sizes[-1][0])
        show(f"{len(prefixes)} corpora of the same text, its own", sizes[-1][1])
    show(f"difference of {num_shards} corpora and 1, resident (share)", abs(sizes[1][0] / sizes[0][0] - 1))
    show.end()


def open_batches(tokenizer_dir: Path, prefixes: list[Path], packing_format: str, masking: MaskingConfig = MaskingConfig()):
    """The training batches of one process over these corpora."""
    config = DataConfig(str(tokenizer_dir), (CorpusConfig(path="unused"),), format=packing_format, num_workers=0)
    config = replace(config, sequence_length=SEQUENCE_LENGTH, masking=masking)
    prepared = PreparedData(
        tokenizer_dir, load_tokenizer(tokenizer_dir).vocab_size, tuple(map(PreparedCorpus, prefixes)), ()
    )
    train = TrainConfig(global_batch_size=8 * MICRO_BATCH_SIZE, micro_batch_size=MICRO_BATCH_SIZE)
    return build_train_batches(prepared, config, train, 1, 0, 1)


def peer_loaders(folder: Path, tokenizer) -> dict:
    """Iterables of batches of the peers, over the same tokens in blocks of 512, in the forms that people use."""
    from datasets import Dataset, disable_progress_bars
    from torch.utils.data import DataLoader
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling

    disable_progress_bars()
    tokens = np.asarray(IndexedCorpus(folder / "whole").tokens)
    inner = SEQUENCE_LENGTH - 2
    blocks = tokens[: len(tokens) // inner * inner].reshape(-1, inner).astype(np.int64)
    framed = np.pad(blocks, ((0, 0), (1, 1)), constant_values=((0, 0), (tokenizer.bos_id, tokenizer.eos_id)))
    specials = np.zeros_like(framed)
    specials[:, [0, -1]] = 1
    rows = Dataset.from_dict({"input_ids": list(framed), "special_tokens_mask": list(specials)})
    theirs = AutoTokenizer.from_pretrained(folder / "tokenizer")
    in_memory = [
        {"input_ids": ids, "special_tokens_mask": mask}
        for ids, mask in zip(torch.from_numpy(framed), torch.from_numpy(specials))
    ]
    forms = {
        "Hugging Face, data set of lists": rows,
        "Hugging Face, data set in torch format": rows.with_format("torch"),
        "Hugging Face, tensors in memory": in_memory,
    }
    collate = DataCollatorForLanguageModeling(theirs, mlm_probability=0.15)
    loaders = {
        name: DataLoader(form, batch_size=MICRO_BATCH_SIZE, shuffle=True, collate_fn=collate) for name, form in forms.items()
    }
    fairseq = fairseq_batches(framed, tokenizer, MICRO_BATCH_SIZE)
    return loaders | ({FAIRSEQ: fairseq} if fairseq is not None else {})


class OurRun:
    """Tokens a second over about `seconds`; goes on with new steps at each call."""

    def __init__(self, batches, seconds: float):
        self._batches, self._seconds, self._step = batches, seconds, 0

    def __call__(self) -> float:
        num_tokens, started = 0, time.perf_counter()
        while time.perf_counter() - started < self._seconds:
            num_tokens += sum(batch.num_real_tokens for batch in self._batches.micro_batches(self._step))
            self._step += 1
        return num_tokens / (time.perf_counter() - started)


class LoaderRun:
    """The same of a peer's batches, whose rows are full."""

    def __init__(self, loader, seconds: float):
        self._loader, self._seconds = loader, seconds

    def __call__(self) -> float:
        num_tokens, started = 0, time.perf_counter()
        while time.perf_counter() - started < self._seconds:
            for batch in self._loader:
                num_tokens += batch["input_ids"].numel()
                if time.perf_counter() - started >= self._seconds:
                    break
        return num_tokens / (time.perf_counter() - started)


def alternate(rounds: int, *functions) -> list[float]:
    """The median time of each function, in seconds, over rounds in which all of them run."""
    times = [[] for _ in functions]
    for _ in range(rounds):
        for function, taken in zip(functions, times):
            started = time.perf_counter()
            function()
            taken.append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in times]


def peak_megabytes(command: list) -> float:
    """The largest sum of resident memory of a command and its children, looked at ten times a second."""
    import psutil

    process, peak = psutil.Popen([str(part) for part in command], stdout=subprocess.DEVNULL), 0
    while process.poll() is None:
        try:
            peak = max(peak, sum(p.memory_info().rss for p in (process, *process.children(recursive=True))))
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{command[1]} ended with {process.returncode}")
    return peak / 1e6


class _Table:
    """Prints lines and keeps them."""

    def __init__(self, lines: list[str]):
        self._lines = lines

    def __call__(self, name: str, value: float, ratio: float | None = None, bar: float | None = None) -> None:
        text = f"  {name:<78}{value:10.2f}"
        if ratio is not None:
            text += f"   {ratio:6.2f}x the fastest peer" + (f" (bar: {bar:g})" if bar else "")
        self.note(text.strip("\n"), indented=False)

    def title(self, name: str, unit: str) -> None:
        self.note(f"{name} ({unit}; medians)", indented=False)

    def note(self, text: str, indented: bool = True) -> None:
        text = f"  {text}" if indented else text
        self._lines.append(text)
        print(text, flush=True)

    def end(self) -> None:
        self.note("", indented=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/data_pipeline.py",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--text", type=Path, required=True, metavar="FILE", help="plain text, perhaps in gzip")
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="DIR", help="the tokenizer's folder")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="alternating rounds of every measurement (5)")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="of a round of batches (2)")
    parser.add_argument("--copies", type=int, default=6, metavar="N", help="of the text, for the peak memory (6)")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the figures down, with the machine and the versions")
    return parser


if __name__ == "__main__":
    sys.exit(main())
