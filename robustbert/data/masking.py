"""Which tokens are hidden, and what stands in their place (RoBERTa, sections 2.3 and 4.1).

Dynamic masking: a block has other masks in every epoch. Masks are hashes of (seed, corpus, epoch, block, position).
Legend: B batch, S sequence, M masked positions of the whole batch.
"""

from dataclasses import dataclass

import numpy as np

from robustbert.config import MaskingConfig
from robustbert.data.hashing import GOLDEN, below, hash_of, mix64, uniform

_NEVER = np.uint64(2**64 - 1)
_COUNT_STREAM, _CHOICE_STREAM = np.uint64(0xA0761D6478BD642F), np.uint64(0xE7037ED1A0B428DB)


@dataclass(frozen=True)
class MaskingVocabulary:
    """What masking knows of a tokenizer: is_special (bool, by id), ordinary_ids (int64, all the others), mask_id."""

    is_special: np.ndarray
    ordinary_ids: np.ndarray
    mask_id: int

    @classmethod
    def of(cls, tokenizer) -> "MaskingVocabulary":
        """From a Tokenizer."""
        is_special = np.zeros(tokenizer.vocab_size, bool)
        is_special[list(tokenizer.special_ids)] = True
        return cls(is_special, np.flatnonzero(~is_special), tokenizer.mask_id)


def sample_keys(seed: int, corpus_B: np.ndarray, epoch_B: np.ndarray, block_B: np.ndarray) -> np.ndarray:
    """The masks' key of each sample: uint64 (B,), a pure function of its arguments."""
    return hash_of(seed, corpus_B, epoch_B, block_B)


def mask_tokens(
    tokens_BS: np.ndarray, keys_B: np.ndarray, config: MaskingConfig, vocabulary: MaskingVocabulary
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Select 15% of the tokens of each row and apply the 80/10/10 rule (RoBERTa, section 2.3).

    tokens_BS: int64, padded; not modified. Special tokens, padding among them, are never selected.
    keys_B: uint64, from sample_keys; a row's masks depend on its key and its tokens alone.
    Returns inputs_BS (int64), positions_M (int64, flat index b * S + s, ascending) and targets_M (int64, original ids).

    A row of n ordinary tokens has floor(0.15 n + u) of them selected, u uniform in [0, 1): an exact number, as in
    BERT and fairseq, rather than a coin a token. The mean is exactly 15% for every n, and the number of predictions
    hardly varies from one batch to the next (a coin would add 10% of noise to the loss weight of a 512-token row).
    """
    num_rows, sequence_length = tokens_BS.shape
    maskable_BS = ~vocabulary.is_special[tokens_BS]
    steps_S = np.arange(1, sequence_length + 1, dtype=np.uint64) * GOLDEN
    order_BS = mix64(keys_B[:, None] + steps_S)
    np.putmask(order_BS, ~maskable_BS, _NEVER)

    exact_B = config.probability * maskable_BS.sum(axis=1)
    num_selected_B = np.floor(exact_B + uniform(mix64(keys_B ^ _COUNT_STREAM))).astype(np.int64)
    # The tokens with the smallest hashes are selected: those up to the num_selected-th smallest of the row.
    sorted_BS = np.sort(order_BS, axis=1)
    limit_B = sorted_BS[np.arange(num_rows), np.maximum(num_selected_B - 1, 0)]
    selected_BS = order_BS <= limit_B[:, None]
    selected_BS[num_selected_B == 0] = False

    positions_M = np.flatnonzero(selected_BS)
    targets_M = tokens_BS.ravel()[positions_M]
    choice_M = mix64(order_BS.ravel()[positions_M] ^ _CHOICE_STREAM)
    share_M = uniform(choice_M)
    random_M = vocabulary.ordinary_ids[below(mix64(choice_M + GOLDEN), len(vocabulary.ordinary_ids))]
    replaced_M = np.where(share_M < config.mask_share, vocabulary.mask_id, random_M)
    kept_M = share_M >= config.mask_share + config.random_share
    inputs_BS = tokens_BS.copy()
    inputs_BS.ravel()[positions_M] = np.where(kept_M, targets_M, replaced_M)
    return inputs_BS, positions_M, targets_M
