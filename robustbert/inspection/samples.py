"""Samples of a corpus as the model sees them: decoded, with the masks, what stands in their place, and the two segments."""

from collections.abc import Iterator

import numpy as np

from robustbert.config import CorpusConfig, DataConfig, MaskingConfig
from robustbert.data.blocks.packing import open_packing
from robustbert.data.open_corpus import Corpus
from robustbert.data.sampler import Sampler
from robustbert.data.tokenizer import Tokenizer, load_tokenizer

# How a token is shown: as it is, a special one, hidden behind the mask, replaced by another, predicted and left as it is.
PLAIN, SPECIAL, MASKED, REPLACED, KEPT = "plain", "special", "masked", "replaced", "kept"


def decoded_samples(
    corpus: Corpus,
    num_samples: int,
    packing_format: str,
    sequence_length: int,
    masking: MaskingConfig,
    epoch: int = 0,
    seed: int = 1,
    tokenizer: Tokenizer | None = None,
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The first samples of an epoch of a run on this corpus alone: (a line of counts, parts as (kind, text)).

    Writes nothing beside the corpus. seed: run.seed of the run. tokenizer: of foreign data; ours name their own.
    """
    from robustbert.data.batches import MaskedBlocks  # imports torch

    tokenizer = tokenizer or load_tokenizer(corpus.tokenizer_dir)
    config = DataConfig("unused", (CorpusConfig(path="unused"),), format=packing_format, masking=masking, num_workers=0)
    object.__setattr__(config, "sequence_length", sequence_length)
    packing = open_packing(corpus, packing_format, sequence_length, tokenizer, stores=False)
    numbers = epoch * len(packing) + np.arange(min(num_samples, len(packing)))
    samples = Sampler([len(packing)], [None], seed)(numbers)
    batches = MaskedBlocks([packing], config, seed, tokenizer).micro_batches(samples, 1)
    for block, batch in zip(samples.block_N.tolist(), batches, strict=True):
        inputs = batch.tokens_BS[0, : batch.num_real_tokens].numpy()
        targets = dict(zip(batch.masked_positions_M.tolist(), batch.targets_M.tolist()))
        kinds = [_kind(i, id_, targets, tokenizer) for i, id_ in enumerate(inputs.tolist())]
        counts = (
            f"block {block:,} of {len(packing):,}: {len(inputs)} tokens, {len(targets)} predicted ({kinds.count(MASKED)} masked, "
            f"{kinds.count(REPLACED)} replaced, {kinds.count(KEPT)} kept)"
        )
        if batch.is_next_B is not None:
            follows = "follows the first" if batch.is_next_B.item() else "is from elsewhere"
            counts += f"; {int(batch.token_types_BS.sum())} tokens in the second segment, which {follows}"
        yield counts, list(_parts(inputs, kinds, targets, tokenizer))


def _kind(place: int, id_: int, targets: dict, tokenizer) -> str:
    if place in targets:
        return MASKED if id_ == tokenizer.mask_id else KEPT if id_ == targets[place] else REPLACED
    return SPECIAL if id_ in tokenizer.special_ids else PLAIN


def _parts(inputs: np.ndarray, kinds: list[str], targets: dict, tokenizer) -> Iterator[tuple[str, str]]:
    """Tokens that are neither special nor predicted are decoded together; a blank where the tokenizer puts one between parts."""
    original = [targets.get(place, id_) for place, id_ in enumerate(inputs.tolist())]
    start = 0
    for place in range(len(inputs) + 1):
        if place < len(inputs) and kinds[place] == PLAIN:
            continue
        if place > start:
            yield PLAIN, _blank(original, start, tokenizer) + tokenizer.decode(inputs[start:place])
        if place < len(inputs):
            blank, shown = _blank(original, place, tokenizer), tokenizer.decode([inputs[place]])
            if kinds[place] == SPECIAL:
                yield SPECIAL, blank + shown
            else:
                hidden = tokenizer.decode([original[place]])
                blank += hidden[: len(hidden) - len(hidden.lstrip())]
                inside = hidden.strip() if kinds[place] == KEPT else f"{hidden.strip()}→{shown.strip()}"
                yield kinds[place], f"{blank}[{inside}]"
        start = place + 1


def _blank(original: list[int], place: int, tokenizer) -> str:
    """What the tokenizer puts between the token at a place and the one before, where the tokens themselves hold none."""
    if place == 0:
        return ""
    before, here = original[place - 1 : place], original[place : place + 1]
    parted = f"{tokenizer.decode(before)} {tokenizer.decode(here)}"
    return " " if tokenizer.decode(before + here) == parted else ""
