"""Word-level vectors on the word pieces of a tokenizer: each piece gets its word's vector, special tokens get zeros."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32


def align_to_pieces(
    word_ids: Sequence[int | None], word_vectors: Float[np.ndarray, "word dim"]
) -> Float[np.ndarray, "token dim"]:
    """word_ids as a fast tokenizer's `BatchEncoding.word_ids(row)` gives them, None for special tokens.

    Tokenize the same list of words that the vectors belong to (`is_split_into_words=True`); words cut off by
    truncation are simply not asked for.  Raises IndexError if a piece belongs to a word that has no vector.
    """
    zeros = np.zeros((1, word_vectors.shape[1]), dtype=word_vectors.dtype)
    rows = [0 if word is None else word + 1 for word in word_ids]
    return np.concatenate([zeros, word_vectors])[rows]


def word_positions(word_ids: Sequence[int | None], words: int) -> Float32[np.ndarray, "token 2"]:
    """For each piece the middle of its word in the utterance, in (0, 1), as if all its `words` words took equally
    long, and the share 1 / words of each; zeros on special tokens."""
    vectors = np.stack([(np.arange(words) + 0.5) / max(words, 1), np.full(words, 1 / max(words, 1))], axis=1)
    return align_to_pieces(word_ids, vectors.astype(np.float32))
