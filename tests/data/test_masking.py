"""15% selected, of these 80/10/10, never a special; a pure function of seed, epoch and block."""

import dataclasses

import numpy as np
import pytest

from robustbert.config import MaskingConfig
from robustbert.data.hashing import hash_of
from robustbert.data.masking import MaskingVocabulary, mask_epochs, mask_tokens, sample_keys

VOCABULARY_SIZE, PAD, MASK = 1000, 1, 999
GOLDEN_HASHES = [8613754321676457149, 15529212649579244238]
CONFIG = MaskingConfig()


@pytest.fixture(scope="module")
def vocabulary():
    is_special = np.zeros(VOCABULARY_SIZE, bool)
    is_special[[0, 1, 2, 3, MASK]] = True
    return MaskingVocabulary(is_special, np.flatnonzero(~is_special), MASK)


def rows(num_rows, sequence_length, seed=0, padding=True):
    rng = np.random.default_rng(seed)
    tokens_BS = rng.integers(4, MASK, (num_rows, sequence_length))
    tokens_BS[:, 0] = 0
    tokens_BS[:, sequence_length // 2] = 2
    for row, length in zip(tokens_BS, rng.integers(sequence_length // 2, sequence_length, num_rows) if padding else ()):
        row[length - 1], row[length:] = 2, PAD
    return tokens_BS


def keys(num_rows, seed=1, epoch=0):
    return sample_keys(seed, np.zeros(num_rows, int), np.full(num_rows, epoch), np.arange(num_rows))


def test_shares_over_a_million_tokens_are_within_three_sigma(vocabulary):
    tokens_BS = rows(8000, 128, padding=False)
    inputs_BS, positions_M, targets_M = mask_tokens(tokens_BS, keys(8000), CONFIG, vocabulary)
    num_tokens, num_selected = int((~vocabulary.is_special[tokens_BS]).sum()), len(positions_M)
    assert num_tokens >= 1_000_000

    def assert_within_three_sigma(count, total, share):
        assert abs(count - share * total) <= 3 * np.sqrt(total * share * (1 - share)), (count / total, share)

    assert_within_three_sigma(num_selected, num_tokens, 0.15)
    replacement_M = inputs_BS.ravel()[positions_M]
    is_mask, is_kept = replacement_M == MASK, replacement_M == targets_M
    chance = 1 / len(vocabulary.ordinary_ids)  # a random token may be the original one
    assert_within_three_sigma(is_mask.sum(), num_selected, 0.8)
    assert_within_three_sigma(is_kept.sum(), num_selected, 0.1 + 0.1 * chance)
    random_M = replacement_M[~is_mask & ~is_kept]
    assert_within_three_sigma(len(random_M), num_selected, 0.1 * (1 - chance))
    counts = np.bincount(random_M, minlength=VOCABULARY_SIZE)[vocabulary.ordinary_ids]
    expected = len(random_M) / len(counts)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - len(counts)) < 5 * np.sqrt(2 * len(counts))
    # Every place of a row is selected equally often.
    by_place = np.bincount(positions_M % 128, minlength=128)
    assert by_place[0] == by_place[64] == 0
    places = np.delete(by_place, [0, 64])
    assert (np.abs(places - 0.15 * 8000) < 5 * np.sqrt(8000 * 0.15 * 0.85)).all()


def test_each_row_has_its_exact_share_rounded_up_or_down(vocabulary):
    tokens_BS = rows(500, 64)
    _, positions_M, _ = mask_tokens(tokens_BS, keys(500), CONFIG, vocabulary)
    selected_B = np.bincount(positions_M // 64, minlength=500)
    exact_B = 0.15 * (~vocabulary.is_special[tokens_BS]).sum(axis=1)
    assert ((selected_B == np.floor(exact_B)) | (selected_B == np.floor(exact_B) + 1)).all()


def test_specials_and_padding_are_never_selected_and_the_rest_is_untouched(vocabulary):
    tokens_BS = rows(500, 64)
    before = tokens_BS.copy()
    inputs_BS, positions_M, targets_M = mask_tokens(tokens_BS, keys(500), CONFIG, vocabulary)
    np.testing.assert_array_equal(tokens_BS, before)
    np.testing.assert_array_equal(targets_M, tokens_BS.ravel()[positions_M])
    assert not vocabulary.is_special[targets_M].any()
    assert (np.diff(positions_M) > 0).all()
    untouched = np.delete(inputs_BS.ravel(), positions_M)
    np.testing.assert_array_equal(untouched, np.delete(tokens_BS.ravel(), positions_M))
    replaced = inputs_BS.ravel()[positions_M]
    assert not vocabulary.is_special[replaced[replaced != MASK]].any()


def test_a_rows_masks_do_not_depend_on_its_batch(vocabulary):
    tokens_BS = rows(20, 64)
    whole, _, _ = mask_tokens(tokens_BS, keys(20), CONFIG, vocabulary)
    single, _, _ = mask_tokens(tokens_BS[7:8], keys(20)[7:8], CONFIG, vocabulary)
    np.testing.assert_array_equal(whole[7:8], single)


def test_masks_change_with_the_epoch_and_the_seed_and_with_nothing_else(vocabulary):
    tokens_BS = rows(50, 64)
    positions = {
        name: tuple(mask_tokens(tokens_BS, key, CONFIG, vocabulary)[1])
        for name, key in {"first": keys(50), "again": keys(50), "epoch": keys(50, epoch=1), "seed": keys(50, seed=2)}.items()
    }
    assert positions["first"] == positions["again"]
    assert len(set(positions.values())) == 3
    shared = set(positions["first"]) & set(positions["epoch"])
    assert len(shared) < 0.25 * len(positions["first"])


def test_a_row_of_specials_only_has_no_prediction(vocabulary):
    tokens_BS = np.array([[0, 2, PAD, PAD]])
    inputs_BS, positions_M, targets_M = mask_tokens(tokens_BS, keys(1), CONFIG, vocabulary)
    np.testing.assert_array_equal(inputs_BS, tokens_BS)
    assert len(positions_M) == len(targets_M) == 0


def test_masks_stay_the_same_over_releases():
    """A run that resumes under a later version must see the same masks: these numbers are part of the format."""
    assert hash_of(1, 0, 2, np.array([3, 4])).tolist() == GOLDEN_HASHES


def test_static_masks_come_again_and_dynamic_ones_do_not():
    epochs = np.arange(40)
    assert np.bincount(mask_epochs(epochs, MaskingConfig(strategy="static"))).tolist() == [4] * 10
    assert mask_epochs(epochs, MaskingConfig(strategy="static", num_static_masks=3)).tolist() == (epochs % 3).tolist()
    assert mask_epochs(epochs, MaskingConfig()).tolist() == epochs.tolist()


WHOLE_WORD = MaskingConfig(whole_word=True)


@pytest.fixture(scope="module")
def word_vocabulary(vocabulary):
    """Ids below 400 begin a word, 400 to 899 continue one, those from 900 on are punctuation."""
    ids = np.arange(VOCABULARY_SIZE)
    is_mark = (ids >= 900) | vocabulary.is_special
    return dataclasses.replace(vocabulary, starts_word=(ids < 400) | is_mark, ends_word=is_mark)


def words_of(row, vocabulary):
    """The words of a row, by a plain loop: lists of places."""
    words = []
    for place, token in enumerate(row):
        if place == 0 or vocabulary.starts_word[token] or vocabulary.ends_word[row[place - 1]]:
            words.append([])
        words[-1].append(place)
    return [word for word in words if not vocabulary.is_special[row[word[0]]]]


def test_whole_words_are_selected_and_fifteen_percent_of_the_tokens(word_vocabulary):
    tokens_BS = rows(4000, 128)
    _, positions_M, _ = mask_tokens(tokens_BS, keys(4000), WHOLE_WORD, word_vocabulary)
    selected_BS = np.zeros(tokens_BS.shape, bool)
    selected_BS.ravel()[positions_M] = True
    for row, selected in zip(tokens_BS[:300], selected_BS):
        longest = 0
        for word in words_of(row, word_vocabulary):
            assert selected[word].all() or not selected[word].any()
            longest = max(longest, len(word))
        num_maskable = int((~word_vocabulary.is_special[row]).sum())
        assert abs(selected.sum() - 0.15 * num_maskable) < longest
    maskable_BS = ~word_vocabulary.is_special[tokens_BS]
    assert abs(selected_BS.sum() / maskable_BS.sum() - 0.15) < 0.001
    # Tokens of short and of long words are selected equally often.
    marks_BS = (tokens_BS >= 900) & maskable_BS
    assert abs(selected_BS[marks_BS].mean() - 0.15) < 0.006
    continuing_BS = (tokens_BS >= 400) & (tokens_BS < 900)
    assert abs(selected_BS[continuing_BS].mean() - 0.15) < 0.003


def test_whole_words_of_single_tokens_are_masked_as_tokens_are(vocabulary):
    everywhere = np.ones(VOCABULARY_SIZE, bool)
    single = dataclasses.replace(vocabulary, starts_word=everywhere, ends_word=everywhere)
    tokens_BS = rows(500, 64)
    _, positions_M, _ = mask_tokens(tokens_BS, keys(500), WHOLE_WORD, single)
    selected_B = np.bincount(positions_M // 64, minlength=500)
    exact_B = 0.15 * (~vocabulary.is_special[tokens_BS]).sum(axis=1)
    assert ((selected_B == np.floor(exact_B)) | (selected_B == np.ceil(exact_B))).all()
    assert not vocabulary.is_special[tokens_BS.ravel()[positions_M]].any()


def test_whole_word_masks_do_not_depend_on_the_width_or_the_batch(word_vocabulary):
    tokens_BS = rows(20, 64)
    wider = np.concatenate([tokens_BS, np.full((20, 9), PAD)], axis=1)
    whole, _, _ = mask_tokens(tokens_BS, keys(20), WHOLE_WORD, word_vocabulary)
    padded, _, _ = mask_tokens(wider[7:8], keys(20)[7:8], WHOLE_WORD, word_vocabulary)
    np.testing.assert_array_equal(whole[7], padded[0, :64])


def test_a_row_of_specials_only_has_no_whole_word(word_vocabulary):
    tokens_BS = np.array([[0, 2, PAD, PAD]])
    assert len(mask_tokens(tokens_BS, keys(1), WHOLE_WORD, word_vocabulary)[1]) == 0


def test_words_of_a_byte_level_bpe(roberta_tokenizer):
    starts, ends = roberta_tokenizer.word_edges()

    def words(text):
        ids = np.array(roberta_tokenizer.encode(text))
        begins = starts[ids] | np.append(True, ends[ids[:-1]])
        begins[0] = True
        return [roberta_tokenizer.decode(word) for word in np.split(ids, np.flatnonzero(begins)[1:])]

    assert words("Unbelievably, transmogrification works.") == ["Unbelievably", ",", " transmogrification", " works", "."]
    # The first word of a paragraph has no space in front; the mark before it ends the word.
    assert words("the end.Transmogrify it") == ["the", " end", ".", "Transmogrify", " it"]
    assert words("I don't (really) naïveté—so") == ["I", " don", "'t", " (", "really", ")", " naïveté", "—", "so"]
    assert starts[[0, 1, 2, 3]].all() and ends[[0, 1, 2, 3]].all()
    # A character in several tokens stays in its word.
    assert words(" 猫と犬 x") == [" 猫と犬", " x"]
