"""The project's own commands on this machine: the quickstart as shipped, tools/prove_resume, the tests that need CUDA."""

import re
import subprocess
import sys

from benchmarks.gpu.context import ROOT, Context
from benchmarks.gpu.prepare import optional
from robustbert.config import TrainConfig, load_config
from robustbert.run_directory import RunDirectory

_TINY_MODEL = (
    "model.num_layers=1",
    "model.hidden_size=32",
    "model.ffn_hidden_size=32",
    "model.num_attention_heads=2",
    "model.max_sequence_length=32",
)
_QUICKSTART = str(ROOT / "configs" / "quickstart.yaml")
# tools/prove_resume with the launcher of tests/faults: its runs end without a conversion each.
_PROVE_RESUME = "import sys; from launcher.prove_resume import main; sys.exit(main(sys.argv[1:], 'tests.faults.launch'))"


class CommandFailed(RuntimeError):
    """A command's exit code was not 0; the message is what it said last."""


def call(context: Context, *words: str) -> str:
    """Run `python WORDS` in the checkout and return its output, which the stage's log has as well. CommandFailed."""
    print("$", *words, flush=True)
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=context.left_s(),
    )
    print(done.stdout, flush=True)
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        raise CommandFailed(
            f"{words[1] if len(words) > 1 else words[0]}: exit code {done.returncode}: {lines[-1] if lines else 'no output'}"
        )
    return done.stdout


def quickstart(context: Context) -> str:
    """`launcher submit configs/quickstart.yaml` as shipped; where that is refused, with one process a card as well."""
    words = ["-m", "launcher", "submit", _QUICKSTART, f"run.dir={context.folder}"]
    if context.rehearse:
        words += [
            "train.steps=4",
            "optim.warmup_steps=2",
            "train.eval_interval=4",
            "train.eval_sequences=16",
            *_TINY_MODEL,
            *_prepared_data(context),
        ]
    try:
        call(context, *words)
        context.check("as shipped", True)
        how, name = "as shipped", "quickstart"
    except CommandFailed as error:
        context.check("as shipped", False, error=str(error))
        call(context, *words, "run.name=quickstart-1", f"cluster.processes_per_node={context.num_processes}")
        how, name = f"as shipped it fails ({error}); with {context.num_processes} process(es)", "quickstart-1"
    run = RunDirectory(context.folder / name)
    events = {event["event"]: event for event in run.events()}
    finished, last = events["finished"], run.metrics()[-1]
    keys = ("heldout_perplexity", "heldout_perplexity_before", "unigram_perplexity")
    context.record(tokens_per_s=last["tokens_per_s"], **{key: finished[key] for key in keys})
    if not context.rehearse:
        context.check("uses context", finished["heldout_perplexity"] < finished["unigram_perplexity"])
    before, after, unigram = (finished[key] for key in ("heldout_perplexity_before", "heldout_perplexity", "unigram_perplexity"))
    return f"{how}: perplexity {after:.1f}, {before:.1f} before, {unigram:.1f} by frequency alone; converted"


def resume(context: Context) -> str:
    """tools/prove_resume with dropout: bitwise with train.deterministic, and what differs without it."""
    config = str(context.settings.work / "small.yaml")
    own = [
        "model.dropout=0.1",
        "model.attention_dropout=0.1",
        "precision=bf16",
        f"cluster.processes_per_node={context.num_processes}",
    ]
    texts = []
    for name, overrides in (("deterministic", optional(TrainConfig, "train.deterministic=true")), ("plain", [])):
        if name == "deterministic" and not overrides:
            context.record(deterministic="no such key in this version")
            texts.append("no key train.deterministic")
            continue
        output = context.folder / name
        words = [config, "--steps", "12" if context.rehearse else "30", "--output", str(output), *own, *overrides]
        try:
            verdict = call(context, "-c", _PROVE_RESUME, *words)
        except CommandFailed:
            verdict = (context.settings.logs / f"{context.name}.log").read_text(errors="replace").rpartition("\nverdict\n")[2]
        equal, differing = verdicts(verdict)
        if not equal and not differing:
            context.check(name, False, error="no verdict")
            texts.append(f"{name}: no verdict")
            continue
        is_required = name == "deterministic" or context.rehearse  # on the CPU every run is deterministic
        context.check(name, not differing or not is_required, equal=equal, differing=differing)
        texts.append(f"{name}: bitwise equal ({len(equal)} legs)" if not differing else f"{name}: {'; '.join(differing)}")
    return "; ".join(texts)


def verdicts(text: str) -> tuple[list[str], list[str]]:
    """(legs that are equal, legs that differ) of prove_resume's verdict."""
    lines = re.findall(r"^  (equal  |DIFFERS)  (.*)$", text, re.MULTILINE)
    return [leg for kind, leg in lines if kind.strip() == "equal"], [leg for kind, leg in lines if kind == "DIFFERS"]


def gpu_tests(context: Context) -> str:
    """`pytest -m gpu`; in a rehearsal it collects them and skips each.

    Of all test files only those that name the marker: others may import what this machine does not have.
    """
    files = sorted(str(file.relative_to(ROOT)) for file in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in file.read_text())
    output = call(
        context,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-q",
        "-p",
        "no:cacheprovider",
        "--override-ini=addopts=-ra --strict-markers",
        *files,
    )
    summary = output.strip().splitlines()[-1].strip("= ")
    context.record(summary=summary)
    has_run = " passed" in summary
    context.check("tests ran", has_run or context.rehearse, summary=summary)
    return summary


def _prepared_data(context: Context) -> list[str]:
    """The rehearsal's prepared data in place of the quickstart's text."""
    data = load_config(context.settings.work / "small.yaml").data
    entries = {
        name: "[%s]" % ", ".join("{path: %s}" % corpus.path for corpus in getattr(data, name)) for name in ("train", "valid")
    }
    return [
        f"data.tokenizer={data.tokenizer}",
        f"data.train={entries['train']}",
        f"data.valid={entries['valid']}",
        "data.valid_fraction=0",
    ]
