"""Static word vectors: positive pointwise mutual information and truncated SVD (Levy & Goldberg 2014).

PPMI over a window of 4 words, context counts raised to 0.75, vectors U sqrt(S): their counterpart of word2vec with
negative sampling. Stands where Ando et al. have GloVe.
"""

from collections import Counter

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_matrix
from sklearn.utils.extmath import randomized_svd

from msakit.encoders.conventional import BagOfEmbeddings, words_of
from msakit.encoders.pretrain.common import Pools, Task, hold_out, pool_texts

WINDOW, DIM = 4, 50


def task(pools: Pools, seed: int) -> Task:
    """There are no steps: the decomposition is exact.

    Held-out metric: probability that a word of a held-out text scores its true right neighbour higher than a random
    word of these texts (word vector times context vector), for random vectors (before) and for these.
    """
    texts = [words_of(text) for text in pool_texts(pools)]
    seen, held = hold_out(len(texts), seed)
    counts = Counter(word for row in seen for word in texts[row])
    vocabulary = sorted(word for word, count in counts.items() if count >= 3)
    index = {word: number for number, word in enumerate(vocabulary)}
    numbers = [[index[word] for word in text if word in index] for text in texts]
    vectors, contexts = factorise([numbers[row] for row in seen], len(index), DIM, seed)
    words = BagOfEmbeddings(vocabulary, np.random.default_rng(seed).normal(size=vectors.shape))

    def start() -> None:
        words.vectors[:-1] = vectors

    def preference() -> float:
        """Share of neighbours that score above a random word of the same texts; ties count one half."""
        left = np.array([word for row in held for word in numbers[row][:-1]], dtype=np.int64)
        right = np.array([word for row in held for word in numbers[row][1:]], dtype=np.int64)
        mixed = np.random.default_rng(seed).permutation(right)
        gap = (words.vectors[left] * (contexts[right] - contexts[mixed])).sum(axis=1)
        return float((gap > 0).mean() + 0.5 * (gap == 0).mean())

    return Task("PPMI + SVD", "neighbour preferred", "up", preference, {".": [words]}, start=start)


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
