"""Mini BERT: masked language modelling (Devlin et al. 2019) and finding the other sentence of a document.

4 layers of 64, 4 heads, WordPiece of the same texts. In place of BERT's next-sentence task the pooled [CLS] vectors of
the two sentences of a document are contrasted with those of the batch's other documents (InfoNCE), after DeCLUTR
(Giorgi et al. 2021): both tasks see only which sentences belong together, and this one gives single sentences a
meaning, which short pre-training on next sentences does not. A batch's documents are of one pool, so that the kind of
text gives nothing away.

Deviations: pieces start from PPMI-SVD vectors of the same texts (`word_vectors`), because a run of half a minute from
random ones learns the templates of the sentences and little of what the words mean; no dropout.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertForPreTraining, BertTokenizer

from msakit.encoders.pretrain import common
from msakit.encoders.pretrain.common import Pools, Task, mask_tokens, pad, pool_documents
from msakit.encoders.pretrain.word_vectors import factorise

MAX_LENGTH = 64
RANGE = 0.05  # BERT's 0.02 is for a width of 768
TEMPERATURE = 0.1
BATCH = 32  # documents of two sentences


def task(pools: Pools, seed: int) -> Task:
    """Held-out metric: loss in nats a masked token, on single texts."""
    tokenizer = common.word_pieces(common.pool_texts(pools), 2000, MAX_LENGTH)
    model = BertForPreTraining(
        BertConfig(
            vocab_size=len(tokenizer),
            num_hidden_layers=4,
            max_position_embeddings=MAX_LENGTH,
            initializer_range=RANGE,
            **common.SMALL,
        )
    )
    documents = [[tokenizer(document)["input_ids"] for document in pool_documents(folder)] for folder in pools.values()]
    parts = [common.hold_out(len(pool), seed) for pool in documents]
    held_pairs = [pool[row][:2] for pool, (_, held) in zip(documents, parts, strict=True) for row in held[:256]]
    held_ids = [ids for pair in held_pairs for ids in pair]
    kept = [ids[1:-1] for pool, (seen, _) in zip(documents, parts, strict=True) for row in seen for ids in pool[row]]
    rows = [common.draws(seen, BATCH, seed) for seen, _ in parts]
    generator = torch.Generator().manual_seed(seed)

    def loss(step: int) -> Float[Tensor, ""]:
        turn = step % len(documents)
        pairs = [documents[turn][row] for row in next(rows[turn])]
        padded, mask = pad([pair[0] for pair in pairs] + [pair[1] for pair in pairs])
        corrupted, labels = mask_tokens(padded, tokenizer, generator)
        output = model.bert(input_ids=corrupted, attention_mask=mask)
        scores = model.cls.predictions(output.last_hidden_state[labels >= 0])
        first, second = F.normalize(output.pooler_output, dim=-1).chunk(2)
        alike = first @ second.T / TEMPERATURE
        target = torch.arange(len(pairs))
        contrast = (F.cross_entropy(alike, target) + F.cross_entropy(alike.T, target)) / 2
        return F.cross_entropy(scores, labels[labels >= 0]) + contrast

    return Task(
        objective="masked language modelling + contrast of a document's sentences",
        metric="masked loss",
        better="down",
        measure=lambda: masked_loss(model, held_ids, tokenizer, seed),
        saved={".": [model, tokenizer]},
        steps=1000,
        model=model,
        loss=loss,
        start=lambda: _start_from_counts(model, kept, seed),
    )


@torch.no_grad()
def _start_from_counts(model: BertForPreTraining, ids: list[list[int]], seed: int) -> None:
    """PPMI-SVD vectors as word embeddings, at the spread of the random ones that they replace."""
    weight = model.bert.embeddings.word_embeddings.weight
    vectors, _ = factorise(ids, weight.shape[0], weight.shape[1], seed)
    known = np.abs(vectors).sum(axis=1) > 0
    scaled = vectors[known] / vectors[known].std() * float(weight.std())
    weight[torch.from_numpy(known), : scaled.shape[1]] = torch.from_numpy(scaled)


def masked_loss(model: nn.Module, ids: list[list[int]], tokenizer: BertTokenizer, seed: int) -> float:
    """Mean loss over the masked tokens of these texts; the masks depend on the seed alone."""
    generator = torch.Generator().manual_seed(seed + 1)
    total, count = 0.0, 0
    for start in range(0, len(ids), 64):
        padded, mask = pad(ids[start : start + 64])
        corrupted, labels = mask_tokens(padded, tokenizer, generator)
        output = model(input_ids=corrupted, attention_mask=mask)
        # BertForPreTraining calls them prediction_logits, the masked models logits: the first in either case.
        total += float(F.cross_entropy(output[0].flatten(0, 1), labels.flatten(), reduction="sum"))
        count += int((labels >= 0).sum())
    return total / count
