"""Mini BERT: masked language modelling (Devlin et al. 2019) on the texts of the pools.

4 layers of 64, 4 heads, WordPiece of the same texts. Deviations: no next-sentence task, as in RoBERTa, for a line of
a pool is one short text; pieces start from PPMI-SVD vectors of the same texts (`word_vectors`), because a run of half
a minute from random ones learns the templates of the sentences and little of what the words mean.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from msakit.encoders.pretrain.common import (
    Pools,
    Pretraining,
    Stopwatch,
    draws,
    hold_out,
    mask_tokens,
    optimise,
    pad,
    pool_texts,
    save,
    word_pieces,
)
from msakit.encoders.pretrain.word_vectors import factorise

MAX_LENGTH = 64
RANGE = 0.05  # BERT's 0.02 is for a width of 768


def train(out: Path, *, pools: Pools, seed: int = 0, steps: int = 350, batch: int = 64, vocabulary: int = 2000) -> None:
    """Write model and tokenizer to `out`; held-out metric: loss in nats a masked token."""
    watch = Stopwatch()
    torch.manual_seed(seed)
    texts = pool_texts(pools)
    tokenizer = word_pieces(texts, vocabulary, MAX_LENGTH)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=256,
            max_position_embeddings=MAX_LENGTH,
            initializer_range=RANGE,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )
    ids = tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    seen, held = hold_out(len(ids), seed)
    held_ids = [ids[row] for row in held[:512]]
    before = masked_loss(model, held_ids, tokenizer, seed)
    _start_from_counts(model, [ids[row][1:-1] for row in seen], seed)
    rows = draws(seen, batch, seed)
    generator = torch.Generator().manual_seed(seed)

    def loss(step: int) -> Float[Tensor, ""]:
        padded, mask = pad([ids[row] for row in next(rows)])
        corrupted, labels = mask_tokens(padded, tokenizer, generator)
        return model(input_ids=corrupted, attention_mask=mask, labels=labels).loss

    optimise(model, loss, steps, rate=1e-3, title="pre-train bert")
    after = masked_loss(model, held_ids, tokenizer, seed)

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    record = Pretraining("masked language modelling", "masked loss", before, after, "down", steps, seed, watch())
    save(out, write, record)


@torch.no_grad()
def _start_from_counts(model: BertForMaskedLM, ids: list[list[int]], seed: int) -> None:
    """PPMI-SVD vectors as word embeddings, at the spread of the random ones that they replace."""
    weight = model.bert.embeddings.word_embeddings.weight
    vectors, _ = factorise(ids, weight.shape[0], weight.shape[1], seed)
    known = np.abs(vectors).sum(axis=1) > 0
    scaled = vectors[known] / vectors[known].std() * float(weight.std())
    weight[torch.from_numpy(known), : scaled.shape[1]] = torch.from_numpy(scaled)


@torch.no_grad()
def masked_loss(model: torch.nn.Module, ids: list[list[int]], tokenizer: BertTokenizer, seed: int) -> float:
    """Mean loss over the masked tokens of these texts; the masks depend on the seed alone."""
    model.eval()
    generator = torch.Generator().manual_seed(seed + 1)
    total, count = 0.0, 0
    for start in range(0, len(ids), 64):
        padded, mask = pad(ids[start : start + 64])
        corrupted, labels = mask_tokens(padded, tokenizer, generator)
        targets = int((labels >= 0).sum())
        total += float(model(input_ids=corrupted, attention_mask=mask, labels=labels).loss) * targets
        count += targets
    return total / count
