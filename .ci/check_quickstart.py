"""After the README's main command: has the run learned context, and in what time? Exit code 1 where not."""

import json
import sys
from pathlib import Path

WANTED_RATIO, WANTED_S, TOO_LONG_S = 1.5, 600, 1200

seconds = float(sys.argv[1])
events = [json.loads(line) for line in Path("runs/quickstart/events.jsonl").read_text().splitlines()]
finished = next(event for event in events if event["event"] == "finished")
ratio = finished["unigram_perplexity"] / finished["heldout_perplexity"]
print(
    f"quickstart: held-out perplexity {finished['heldout_perplexity']:.1f}, {ratio:.2f} times below the unigram perplexity "
    f"{finished['unigram_perplexity']:.1f} (at least {WANTED_RATIO} wanted), in {seconds:.0f} s ({WANTED_S} wanted on 2 free cores)"
)
sys.exit(0 if ratio >= WANTED_RATIO and seconds <= TOO_LONG_S else 1)
