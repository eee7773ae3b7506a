#!/usr/bin/env python3
"""Time and memory of taking in foreign indexed data: side files, blocks, opening; the index is made here, the .bin is sparse.

benchmarks/foreign_data.py [--sequences 100000000] [--record benchmarks/records/DATE_foreign_data.md]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.records import write_record  # noqa: E402

LENGTH, PER_DOCUMENT = 25, 20  # tokens of a sequence, sequences of a document
_MEASURE = """
import json, sys, time
import numpy as np
from pathlib import Path
from robustbert.data.blocks.packing import open_packing
from robustbert.data.foreign import corpus as foreign
from robustbert.data.foreign.fit import Fit
from robustbert.data.foreign.frames import Frames
from robustbert.data.foreign.numbering import Numbering
from robustbert.data.foreign.corpus import open_foreign, prepare_foreign
from robustbert.data.tokenizer import load_tokenizer

what, prefix, side, tokenizer_dir = sys.argv[1:]
tokenizer = load_tokenizer(tokenizer_dir)
tokenizer.encode("warm")
is_fairseq = "fairseq" in prefix
ids = np.zeros(1, np.int64) + 10  # the .bin is one long hole: its zeros stand for an ordinary id, and for </s>
frames = Frames(tail=1, tail_id=0) if is_fairseq else Frames()
foreign.find_fit = lambda *_: Fit(Numbering("made up", ids), frames, 0, 0)

def memory():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0]) / 1024

before, started, cpu = memory(), time.perf_counter(), time.process_time()
if what == "prepare":
    prepare_foreign(prefix, side, tokenizer, "small")
else:
    corpus = open_foreign(prefix, side, tokenizer)
    opened = time.perf_counter() - started
    if what == "blocks":
        packing = open_packing(corpus, "full-sentences", 512, tokenizer)
    elif what == "open":
        corpus.tokens[corpus.num_tokens // 2 : corpus.num_tokens // 2 + 510]
took = time.perf_counter() - started
print(json.dumps({"took_s": took, "cpu_s": time.process_time() - cpu, "peak_mib": memory(), "before_mib": before}))
"""


def write_index(prefix: Path, count: int, fairseq: bool) -> None:
    """A true index of `count` sequences of LENGTH uint16 each; of fairseq every 21st is a line of </s> alone."""
    window = PER_DOCUMENT * (PER_DOCUMENT + 1) * 2000
    with open(f"{prefix}.idx", "wb") as file:
        bounds = np.append(np.arange(0, count, PER_DOCUMENT), count)
        file.write(b"MMIDIDX\0\0" + (1).to_bytes(8, "little") + bytes([8]) + count.to_bytes(8, "little"))
        if not fairseq:
            file.write(len(bounds).to_bytes(8, "little"))
        for write_places in (False, True):
            place = 0
            for start in range(0, count, window):
                numbers = np.arange(start, min(start + window, count))
                lengths = np.where((numbers % (PER_DOCUMENT + 1) == PER_DOCUMENT) & fairseq, 1, LENGTH).astype(np.int32)
                ends = place + 2 * np.cumsum(lengths, dtype=np.int64)
                file.write((ends - 2 * lengths).tobytes() if write_places else lengths.tobytes())
                place = int(ends[-1])
        if not fairseq:
            file.write(bounds.astype(np.int64).tobytes())
    with open(f"{prefix}.bin", "wb") as file:
        file.truncate(place)


def measure(what: str, prefix: Path, side: Path, tokenizer_dir: Path) -> dict:
    """One step in a process of its own."""
    command = [sys.executable, "-c", _MEASURE, what, str(prefix), str(side), str(tokenizer_dir)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parent.parent)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure both kinds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=10**8, metavar="N")
    parser.add_argument("--folder", metavar="DIR", help="where to make them: 13 bytes a sequence")
    parser.add_argument("--record", type=Path, metavar="FILE")
    options = parser.parse_args()
    from robustbert.data.tokenizer import train_tokenizer

    lines = [f"{options.sequences:,} sequences of {LENGTH} tokens, {PER_DOCUMENT} a document; each step in a process of its own"]
    lines.append(f"{'index':12} {'step':32} {'seconds':>8} {'CPU s':>7} {'M sequences a minute':>21} {'peak MiB':>9} {'at its start':>13}")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        folder = Path(folder)
        train_tokenizer(iter(["one text is enough here"] * 9), 270).save(folder / "tokenizer")
        for kind in ("Megatron-LM", "fairseq"):
            prefix = folder / kind.lower()
            write_index(prefix, options.sequences, kind == "fairseq")
            for what, name in (("prepare", "side files"), ("open", "opened, and 510 tokens read"), ("blocks", "opened, blocks full-sentences")):
                seen = measure(what, prefix, folder / "side", folder / "tokenizer")
                rate = options.sequences / seen["cpu_s"] * 60 / 1e6
                lines.append(
                    f"{kind:12} {name:32} {seen['took_s']:8.2f} {seen['cpu_s']:7.2f} {rate if what != 'open' else 0:21,.0f} "
                    f"{seen['peak_mib']:9,.0f} {seen['before_mib']:13,.0f}"
                )
            Path(f"{prefix}.idx").unlink()
            Path(f"{prefix}.bin").unlink()
        sizes = {path.name.rpartition(".")[0].partition("-")[0] + " " + path.suffix: path.stat().st_size for path in (folder / "side").iterdir()}
    lines.append("side files, MB: " + ", ".join(f"{name} {size / 1e6:.1f}" for name, size in sorted(sizes.items())))
    print("\n".join(lines))
    if options.record:
        command = f"benchmarks/foreign_data.py --sequences {options.sequences}"
        write_record(options.record, "Foreign indexed data: side files, opening, blocks", command, ", one used", ("numpy",), lines)


if __name__ == "__main__":
    main()
