"""Static word vectors: positive pointwise mutual information and truncated SVD (Levy & Goldberg 2014).

PPMI over a window of 4 words, context counts raised to 0.75, vectors U sqrt(S): their counterpart of word2vec with
negative sampling. Stands where Ando et al. have GloVe.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_matrix
from sklearn.utils.extmath import randomized_svd

from msakit.encoders.conventional import words_of
from msakit.encoders.pretrain.common import Pools, Pretraining, Stopwatch, hold_out, pool_texts, save

WINDOW = 4


def train(out: Path, *, pools: Pools, seed: int = 0, steps: int = 1, dim: int = 50, min_count: int = 3) -> None:
    """Write words.json and vectors.npy to `out`. There are no steps: the decomposition is exact.

    Held-out metric: probability that a word of a held-out text scores its true right neighbour higher than a random
    word of these texts (word vector times context vector), for random vectors (before) and for these.
    """
    watch = Stopwatch()
    texts = [words_of(text) for text in pool_texts(pools)]
    seen, held = hold_out(len(texts), seed)
    counts = Counter(word for row in seen for word in texts[row])
    vocabulary = sorted(word for word, count in counts.items() if count >= min_count)
    index = {word: number for number, word in enumerate(vocabulary)}
    vectors, contexts = factorise([[index[w] for w in texts[row] if w in index] for row in seen], len(index), dim, seed)
    held_words = [[index[word] for word in texts[row] if word in index] for row in held]
    noise = np.random.default_rng(seed).normal(size=vectors.shape).astype(np.float32)

    def write(folder: Path) -> None:
        (folder / "words.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
        np.save(folder / "vectors.npy", vectors)

    before = _preference(noise, contexts, held_words, seed)
    after = _preference(vectors, contexts, held_words, seed)
    record = Pretraining("PPMI + SVD", "neighbour preferred", before, after, "up", steps, seed, watch())
    save(out, write, record)


def factorise(
    sequences: list[list[int]], size: int, dim: int, seed: int
) -> tuple[Float[np.ndarray, "word dim"], Float[np.ndarray, "word dim"]]:
    """Vectors of words and of contexts from sequences of word numbers below `size`; at most size - 1 dimensions."""
    pairs: Counter[tuple[int, int]] = Counter()
    for numbers in sequences:
        for position, word in enumerate(numbers):
            for other in numbers[max(0, position - WINDOW) : position]:
                pairs[word, other] += 1
                pairs[other, word] += 1
    places = np.array(list(pairs), dtype=np.int64)
    joint = np.array(list(pairs.values()), dtype=np.float64)
    word_share = np.bincount(places[:, 0], joint, minlength=size) / joint.sum()
    smooth = np.bincount(places[:, 1], joint, minlength=size) ** 0.75
    context_share = smooth / smooth.sum()
    mutual = np.log(joint / joint.sum() / (word_share[places[:, 0]] * context_share[places[:, 1]]))
    matrix = csr_matrix((np.maximum(mutual, 0), (places[:, 0], places[:, 1])), shape=(size, size))
    # Randomised with a seed: ARPACK restarts from a hidden state, and one seed would not always give one result.
    left, strength, right = randomized_svd(matrix, min(dim, size - 1), n_iter=8, random_state=seed)
    root = np.sqrt(strength)
    return (left * root).astype(np.float32), (right.T * root).astype(np.float32)


def _preference(
    vectors: Float[np.ndarray, "word dim"], contexts: Float[np.ndarray, "word dim"], texts: list[list[int]], seed: int
) -> float:
    """Share of neighbours that score above a random word of the same texts; ties count one half."""
    left = np.array([word for text in texts for word in text[:-1]], dtype=np.int64)
    right = np.array([word for text in texts for word in text[1:]], dtype=np.int64)
    mixed = np.random.default_rng(seed).permutation(right)
    gap = (vectors[left] * (contexts[right] - contexts[mixed])).sum(axis=1)
    return float((gap > 0).mean() + 0.5 * (gap == 0).mean())
