"""Token ids of texts, by one rule of truncation for every encoder and paper.

A text, or a list of words, keeps at most as many tokens, special ones included, as all of these allow: what was asked
for, what the tokenizer says of its model, and what the model has positions for.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msakit.encoders.pretrained import load_config, load_tokenizer

log = logging.getLogger(__name__)

# Positions of these families are counted from behind the padding id.
OFFSET = ("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod", "camembert", "data2vec-text",
          "ibert", "longformer", "luke", "mpnet")  # fmt: skip


@dataclass(frozen=True)
class Tokens:
    """Token ids of texts, special tokens included."""

    ids: list[list[int]]
    word_ids: list[list[int | None]] | None  # of lists of words: the word of each token, None for a special token
    truncated: int  # texts that lost their end
    limit: int  # most tokens of a text
    pad_id: int


def tokenize(
    path: str | Path,
    texts: Sequence[str] | Sequence[Sequence[str]],
    max_tokens: int = 512,
    *,
    tokenizer: str | Path | None = None,
) -> Tokens:
    """Texts, or lists of words, as the text encoder at `path` wants them; a warning counts the truncated ones.

    Args:
        path: folder, hub id or "package:NAME/FOLDER" of the encoder.
        texts: all of them strings, or all of them lists of words.
        max_tokens: at most so many tokens a text, and fewer where the encoder allows fewer.
        tokenizer: where the tokenizer lies if it is not in `path`.

    Raises:
        EncoderError: the encoder cannot be opened, or has no tokenizer.
    """
    opened = load_tokenizer(tokenizer or path)
    tokens = apply_tokenizer(opened, texts, token_limit(opened, load_config(path), max_tokens))
    if tokens.truncated:
        log.warning(
            "%s: %d of %d texts have more than %d tokens; what is beyond is not read",
            path, tokens.truncated, len(tokens.ids), tokens.limit,
        )  # fmt: skip
    return tokens


def token_limit(tokenizer: Any, config: Any, max_tokens: int = 512) -> int:
    """The rule of the module; of a dual encoder's configuration its text tower counts."""
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    if positions is None or positions < 1:  # relative positions
        return min(max_tokens, tokenizer.model_max_length)
    if text.model_type in OFFSET:
        positions -= (text.pad_token_id or 0) + 1
    return min(max_tokens, tokenizer.model_max_length, positions)


def apply_tokenizer(tokenizer: Any, texts: Sequence[str] | Sequence[Sequence[str]], limit: int) -> Tokens:
    """Token ids of all texts, or of all lists of words."""
    words = bool(texts) and not isinstance(texts[0], str)
    given = [list(text) for text in texts] if words else list(texts)
    if words and _wants_spaces(tokenizer):
        given = [[f" {word}" for word in text] for text in given]
    if not given:
        return Tokens([], None, 0, limit, tokenizer.pad_token_id or 0)
    encoded = tokenizer(given, is_split_into_words=words, truncation=True, max_length=limit)
    ids = encoded["input_ids"]
    if encoded.encodings is not None:
        truncated = sum(bool(each.overflowing) for each in encoded.encodings)
    else:  # a tokenizer in Python does not say
        full = [row for row, tokens in enumerate(ids) if len(tokens) == limit]
        longer = (tokenizer(given[row], is_split_into_words=words, truncation=False)["input_ids"] for row in full)
        truncated = sum(len(tokens) > limit for tokens in longer)
    word_ids = [encoded.word_ids(row) for row in range(len(ids))] if words else None
    return Tokens(ids, word_ids, truncated, limit, tokenizer.pad_token_id or 0)


def _wants_spaces(tokenizer: Any) -> bool:
    """Whether the tokenizer marks the beginning of a word by the blank before it, as byte-pair ones do: the words of a
    list have none."""
    if not tokenizer.is_fast:
        return False
    steps = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"] or {}
    return any(step["type"] == "ByteLevel" for step in steps.get("pretokenizers", [steps]) if step)
