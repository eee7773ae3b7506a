"""Which tokens are hidden, and what stands in their place (RoBERTa, sections 2.3 and 4.1).

Dynamic masking: a block has other masks in every epoch; static masking: it has only so many masks, which come again.
Masks are hashes of (seed, corpus, epoch, block, position).
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
    """What masking knows of a tokenizer: is_special (bool, by id), ordinary_ids (int64, all the others), mask_id.

    For whole words, by id: starts_word (bool), a token begins a word; ends_word (bool), what follows it does.
    """

    is_special: np.ndarray
    ordinary_ids: np.ndarray
    mask_id: int
    starts_word: np.ndarray | None = None
    ends_word: np.ndarray | None = None

    @classmethod
    def of(cls, tokenizer, config: MaskingConfig) -> "MaskingVocabulary":
        """From a Tokenizer; with the tables of words where the configuration needs them."""
        is_special = np.zeros(tokenizer.vocab_size, bool)
        is_special[list(tokenizer.special_ids)] = True
        edges = tokenizer.word_edges() if config.whole_word else ()
        return cls(is_special, np.flatnonzero(~is_special), tokenizer.mask_id, *edges)


def mask_epochs(epoch_N: np.ndarray, config: MaskingConfig) -> np.ndarray:
    """The epoch that a sample's masks go by: with the static strategy only num_static_masks different ones (section 4.1).

    The paper's ten masks over forty epochs: each is seen four times.
    """
    return epoch_N % config.num_static_masks if config.strategy == "static" else epoch_N


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
    With config.whole_word words are selected with all their tokens, see _select_words.
    """
    num_rows, sequence_length = tokens_BS.shape
    maskable_BS = ~vocabulary.is_special[tokens_BS]
    steps_S = np.arange(1, sequence_length + 1, dtype=np.uint64) * GOLDEN
    order_BS = mix64(keys_B[:, None] + steps_S)
    np.putmask(order_BS, ~maskable_BS, _NEVER)

    exact_B = config.probability * maskable_BS.sum(axis=1)
    share_B = uniform(mix64(keys_B ^ _COUNT_STREAM))
    if config.whole_word:
        selected_BS = _select_words(tokens_BS, order_BS, exact_B, share_B, vocabulary)
    else:
        selected_BS = _select_tokens(order_BS, exact_B, share_B)

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


def _select_tokens(order_BS: np.ndarray, exact_B: np.ndarray, share_B: np.ndarray) -> np.ndarray:
    """floor(exact + share) tokens of each row, those with the smallest hashes: bool (B, S)."""
    num_selected_B = np.floor(exact_B + share_B).astype(np.int64)
    # The tokens with the smallest hashes are selected: those up to the num_selected-th smallest of the row.
    sorted_BS = np.sort(order_BS, axis=1)
    limit_B = sorted_BS[np.arange(len(order_BS)), np.maximum(num_selected_B - 1, 0)]
    selected_BS = order_BS <= limit_B[:, None]
    selected_BS[num_selected_B == 0] = False
    return selected_BS


def _select_words(
    tokens_BS: np.ndarray, order_BS: np.ndarray, exact_B: np.ndarray, share_B: np.ndarray, vocabulary: MaskingVocabulary
) -> np.ndarray:
    """Whole words of each row, in the order of their hashes, until they hold `exact` tokens: bool (B, S).

    A word's hash is that of its first token. The word that would go beyond `exact` is taken with the probability that makes
    the mean number of tokens `exact`; so a row may have some tokens more or less, as long as that word.
    """
    starts_BS = vocabulary.starts_word[tokens_BS]
    starts_BS[:, 1:] |= vocabulary.ends_word[tokens_BS[:, :-1]]
    starts_BS[:, 0] = True
    places_BS = np.where(starts_BS, np.arange(tokens_BS.shape[1]), 0)
    first_BS = np.maximum.accumulate(places_BS, axis=1)
    word_BS = np.take_along_axis(order_BS, first_BS, axis=1)
    sorted_BS = np.sort(word_BS, axis=1)
    crossing_B = np.maximum(np.ceil(exact_B).astype(np.int64) - 1, 0)
    limit_B = sorted_BS[np.arange(len(tokens_BS)), crossing_B]
    before_BS, at_BS = word_BS < limit_B[:, None], word_BS == limit_B[:, None]
    is_taken_B = share_B * at_BS.sum(axis=1) < exact_B - before_BS.sum(axis=1)
    selected_BS = before_BS | at_BS & is_taken_B[:, None]
    selected_BS[exact_B == 0] = False
    return selected_BS
