"""What the models of Kim & Kim 2022 read: word pieces with audio and vision along them, or frames to align softly.

One :class:`Inputs` a split.  Special tokens get zeros, each piece of a word the word's vector.  Texts of any length the
encoder takes; what is cut off at `max_tokens` is counted and reported.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int

from msakit.data.corpus import Corpus
from msakit.encoders import resolve_path
from msakit.models.layers.word_pieces import align_to_pieces, word_places
from msakit.papers.kim2022.words import Source, Vectors, in_parts, on_words, spoken, standardised
from msakit.training.batching import TextBatches

logger = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Inputs:
    """One split in the order of its rows; the lists have one entry a segment, the dictionaries one a modality."""

    token_ids: list[list[int]]
    word_ids: list[list[int | None]]  # the word of each token, None for special tokens
    words: list[list[str]]
    on_words: dict[str, list[Float32[np.ndarray, "_word _dim"]]]  # empty unless asked for
    frames: dict[str, Float32[np.ndarray, "_segment _frame _dim"]]  # empty unless asked for
    label: np.ndarray
    pad_id: int
    cut: int  # segments that lost words to max_tokens

    def on_pieces(self, order: Int[np.ndarray, " segment"] | None = None) -> dict[str, list[np.ndarray]]:
        """Audio and vision on word pieces, "token dim" a segment; with an order, those of other segments (a control):
        word i of n then gets the vector in the same place of the other segment."""
        pieces: dict[str, list[np.ndarray]] = {name: [] for name in self.on_words}
        for name, vectors in self.on_words.items():
            for segment, (places, words) in enumerate(zip(self.word_ids, self.words, strict=True)):
                taken = vectors[segment] if order is None else stretched(vectors[order[segment]], len(words))
                pieces[name].append(align_to_pieces(places, taken))
        return pieces

    def batches(
        self,
        batch_size: int,
        *,
        soft: bool = False,
        shuffle: np.random.Generator | None = None,
        generator: torch.Generator | None = None,
    ) -> TextBatches:
        """Batches of rows of similar length; generator: in random order.

        Args:
            soft: audio and vision as frames, with the places of the words, instead of on word pieces.
            shuffle: draws which other segment's audio and vision each segment gets.
        """
        order = None if shuffle is None else strangers(len(self.label), shuffle)
        if soft:
            dense = {name: values if order is None else values[order] for name, values in self.frames.items()}
            places = [word_places(ids, len(words)) for ids, words in zip(self.word_ids, self.words, strict=True)]
            per_token: dict[str, Any] = {"place": places}
        else:
            dense, per_token = {}, self.on_pieces(order)
        return TextBatches(
            self.token_ids,
            self.label,
            batch_size,
            per_token=per_token,
            dense=dense,
            pad_id=self.pad_id,
            bucket=True,
            generator=generator,
        )


def prepare(
    corpus: Corpus,
    text_encoder: str,
    sources: Mapping[str, Source],
    max_tokens: int,
    *,
    aligned: bool = True,
    parts: int = 0,
) -> dict[str, Inputs]:
    """Words to word pieces; audio and vision standardised by the training split.

    Args:
        sources: of audio, of vision or of both.
        aligned: lay them on words.
        parts: also give the means over so many equal parts of each segment, for the soft alignment; 0 for none.

    Raises:
        CorpusError: the corpus lacks what a source needs; see :mod:`msakit.papers.kim2022.words`.
    """
    words = spoken(corpus)
    known = set(corpus.splits["train"]["segment_id"])
    vectors: dict[str, Vectors] = {}
    frames: dict[str, Vectors] = {}
    for name, source in sources.items():
        if aligned:
            vectors[name] = standardised(on_words(corpus, name, source, words), known)
        if parts:
            frames[name] = standardised(in_parts(corpus, source, parts), known)
    tokenizer = _tokenizer(text_encoder)
    limit = min(max_tokens, tokenizer.model_max_length)
    ready = {}
    for split in SPLITS:
        rows = corpus.splits[split]
        segments = list(rows["segment_id"])
        tokens = [
            tokenizer(words[segment], is_split_into_words=True, truncation=True, max_length=limit)
            for segment in segments
        ]
        places = [encoded.word_ids() for encoded in tokens]
        last = [max((place for place in word_ids if place is not None), default=-1) for word_ids in places]
        cut = sum(reached + 1 < len(words[segment]) for reached, segment in zip(last, segments, strict=True))
        if cut:
            logger.warning(
                "%s: %d segments have more than %d word pieces; what is beyond is not read", split, cut, limit
            )
        ready[split] = Inputs(
            [encoded["input_ids"] for encoded in tokens],
            places,
            [words[segment] for segment in segments],
            {name: [values[segment] for segment in segments] for name, values in vectors.items()},
            {name: np.stack([values[segment] for segment in segments]) for name, values in frames.items()},
            np.asarray(rows["label"]),
            tokenizer.pad_token_id or 0,
            cut,
        )
    return ready


def _tokenizer(text_encoder: str) -> Any:
    from transformers import AutoConfig, AutoTokenizer

    path = resolve_path(text_encoder)
    # Byte-pair tokenizers mark the beginning of a word by the blank before it; lists of words have none.
    spaced = AutoConfig.from_pretrained(path).model_type in ("roberta", "xlm-roberta", "deberta", "longformer")
    return AutoTokenizer.from_pretrained(path, **({"add_prefix_space": True} if spaced else {}))


def strangers(count: int, random: np.random.Generator) -> Int[np.ndarray, " segment"]:
    """For each segment another one, each used once, drawn at random: the next in a random circle."""
    circle = random.permutation(count)
    order = np.empty(count, np.int64)
    order[circle] = np.roll(circle, 1)
    return order


def stretched(vectors: Float32[np.ndarray, "_other dim"], count: int) -> Float32[np.ndarray, "_word dim"]:
    """The vectors of another segment's words over `count` words, place by place; zeros if it has no word."""
    if not len(vectors):
        return np.zeros((count, vectors.shape[1]), np.float32)
    return vectors[((np.arange(count) + 0.5) / max(count, 1) * len(vectors)).astype(int)]
