"""The end of a run: the newest checkpoint converted, the perplexities, and a look at what the model fills in.

`python -m robustbert.train.summary RUN_DIR` is what the launcher calls after training.
"""

import os
import sys
import warnings
from pathlib import Path

import numpy as np

from robustbert.checkpoint.manifest import committed_checkpoints
from robustbert.config import RunConfig, load_config
from robustbert.convert.convert import convert
from robustbert.data.prepare import prepared_data
from robustbert.data.tokenizer import load_tokenizer
from robustbert.run_directory import RunDirectory

_NUM_EXAMPLES = 3
_WORDS_OF_AN_EXAMPLE = range(8, 22)


def summarise(run: RunDirectory, config_file: Path) -> str:
    """Convert the run's newest checkpoint, unless that is done; the summary as text. config_file: what the run was trained with."""
    output = converted_newest(run)
    finished = next((event for event in reversed(run.events()) if event["event"] == "finished"), None)
    lines = []
    if finished and finished["heldout_perplexity"] is not None:
        before, after, unigram = (
            finished[key] for key in ("heldout_perplexity_before", "heldout_perplexity", "unigram_perplexity")
        )
        lines += [f"held-out perplexity   {before:10.1f} before training"] if before is not None else []
        lines += [
            f"{'held-out perplexity' if before is None else '':19}   {after:10.1f} after step {finished['step']}",
            f"unigram perplexity    {unigram:10.1f} (guessing by token frequency alone, on the same text)",
            "                      "
            + (
                f"{unigram / after:10.2f} times below it: the model uses context"
                if after < unigram
                else "not below it: the model has learned no context"
            ),
        ]
    lines.append(f"converted model       {output}")
    sentences = held_out_sentences(run, load_config(config_file))
    if sentences:
        lines += ["", "held-out sentences, one word hidden:"]
        lines += [line for sentence in sentences for line in fill_mask(output, *sentence)]
    return "\n".join(lines)


def converted_newest(run: RunDirectory) -> Path:
    """converted/huggingface: a link to the newest checkpoint's model; those of earlier ends of the run stay beside it."""
    newest = committed_checkpoints(run.checkpoints)[-1]
    model, link = run.converted / f"huggingface_{newest.name}", run.converted / "huggingface"
    if not model.exists():
        convert(newest, "huggingface", model)
    draft = run.converted / f".link_{os.getpid()}"
    draft.symlink_to(model.name)
    draft.replace(link)
    return link


def held_out_sentences(run: RunDirectory, config: RunConfig) -> list[tuple[str, str]]:
    """Some sentences of the held-out text, evenly spread, each with its middle word replaced by the mask: (sentence, word)."""
    prepared = prepared_data(config.data, run.data)
    if not prepared.valid:
        return []
    tokenizer = load_tokenizer(prepared.tokenizer_dir)
    corpus = prepared.valid[0].open_parts(tokenizer)[0]
    mask, chosen = tokenizer.decode([tokenizer.mask_id]), []
    for number in np.linspace(0, len(corpus) - 1, min(len(corpus), 400)).astype(int):
        words = tokenizer.decode(corpus.sentence(number)).split()
        middle = len(words) // 2
        if len(words) in _WORDS_OF_AN_EXAMPLE and all(word.strip(".,;:'\"()").isalpha() for word in words):
            if len(tokenizer.encode(" " + words[middle])) == 1:
                chosen.append((" ".join([*words[:middle], mask, *words[middle + 1 :]]), words[middle]))
    spread = np.linspace(0, len(chosen) - 1, min(len(chosen), _NUM_EXAMPLES)).astype(int)
    return [chosen[i] for i in spread]


def fill_mask(model_dir: Path, sentence: str, hidden: str) -> list[str]:
    """What the converted model puts in the place of the mask, through transformers' own pipeline."""
    from transformers import pipeline

    guesses = pipeline("fill-mask", model=str(model_dir), tokenizer=str(model_dir), device=-1)(sentence, top_k=3)
    listed = ", ".join(f"{guess['token_str'].strip()} {guess['score']:.0%}" for guess in guesses)
    return [f"  {sentence}", f"      guesses: {listed}; the text has: {hidden}"]


def main(argv: list[str]) -> int:
    """Print the summary of the run in argv[0] and keep it as summary.txt; argv[1]: its configuration, default its config.yaml."""
    warnings.filterwarnings("ignore")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    run = RunDirectory(Path(argv[0]))
    text = summarise(run, Path(argv[1]) if len(argv) > 1 else run.config_file)
    (run.path / "summary.txt").write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
