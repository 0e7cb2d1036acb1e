"""Mini DistilBERT (Sanh et al. 2019): a student of the mini BERT with 3 layers of 64.

Loss = masked language modelling + KL to the teacher's distribution at temperature 2 over the masked tokens, plus
1 - cosine between their last hidden states; layers and embeddings start from the teacher's (every other one, as far as
it has them). Deviation: equal weights 1 : 1 : 1.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import BertForMaskedLM, BertTokenizer, DistilBertConfig, DistilBertForMaskedLM

from msakit.encoders.pretrain.bert import masked_loss
from msakit.encoders.pretrain.common import Pools, Task, draws, hold_out, mask_tokens, pad, pool_texts

TEMPERATURE = 2.0
BATCH = 64


def task(pools: Pools, seed: int, bert: Path) -> Task:
    """`bert`: folder of the teacher. Held-out metric: loss in nats a masked token."""
    tokenizer = BertTokenizer.from_pretrained(bert)
    teacher = BertForMaskedLM.from_pretrained(bert, use_safetensors=True).eval().requires_grad_(False)
    settings = teacher.config
    limit = settings.max_position_embeddings
    student = DistilBertForMaskedLM(
        DistilBertConfig(
            vocab_size=settings.vocab_size,
            dim=settings.hidden_size,
            hidden_dim=settings.intermediate_size,
            n_layers=3,
            n_heads=settings.num_attention_heads,
            max_position_embeddings=limit,
            initializer_range=settings.initializer_range,
            dropout=0.0,
            attention_dropout=0.0,
        )
    )
    ids = tokenizer(pool_texts(pools), truncation=True, max_length=limit)["input_ids"]
    seen, held = hold_out(len(ids), seed)
    held_ids = [ids[row] for row in held[:512]]
    rows = draws(seen, BATCH, seed)
    generator = torch.Generator().manual_seed(seed)

    def loss(step: int) -> Float[Tensor, ""]:
        padded, mask = pad([ids[row] for row in next(rows)])
        corrupted, labels = mask_tokens(padded, tokenizer, generator)
        with torch.no_grad():
            taught = teacher(input_ids=corrupted, attention_mask=mask, output_hidden_states=True)
        learnt = student(input_ids=corrupted, attention_mask=mask, labels=labels, output_hidden_states=True)
        masked, real = labels >= 0, mask.bool()
        soft = nn.functional.kl_div(
            (learnt.logits[masked] / TEMPERATURE).log_softmax(-1),
            (taught.logits[masked] / TEMPERATURE).softmax(-1),
            reduction="batchmean",
        )
        alike = nn.functional.cosine_similarity(learnt.hidden_states[-1][real], taught.hidden_states[-1][real], dim=-1)
        return learnt.loss + TEMPERATURE**2 * soft + 1 - alike.mean()

    return Task(
        objective="distillation + masked LM",
        metric="masked loss",
        better="down",
        measure=lambda: masked_loss(student, held_ids, tokenizer, seed),
        saved={".": [student, tokenizer]},
        steps=300,
        model=student,
        loss=loss,
        start=lambda: _start_from(student, teacher),
    )


@torch.no_grad()
def _start_from(student: Any, teacher: Any) -> None:
    """Copy embeddings and every other layer of the teacher into the student."""
    source, target = teacher.bert.embeddings, student.distilbert.embeddings
    # DistilBERT has no segment embedding: that of the one segment in use goes into the words.
    target.word_embeddings.weight.copy_(source.word_embeddings.weight + source.token_type_embeddings.weight[0])
    target.position_embeddings.weight.copy_(source.position_embeddings.weight)
    target.LayerNorm.load_state_dict(source.LayerNorm.state_dict())
    layers = teacher.bert.encoder.layer
    for number, layer in enumerate(student.distilbert.transformer.layer):
        model = layers[min(2 * number, len(layers) - 1)]
        for name, given in (
            ("attention.q_lin", model.attention.self.query),
            ("attention.k_lin", model.attention.self.key),
            ("attention.v_lin", model.attention.self.value),
            ("attention.out_lin", model.attention.output.dense),
            ("sa_layer_norm", model.attention.output.LayerNorm),
            ("ffn.lin1", model.intermediate.dense),
            ("ffn.lin2", model.output.dense),
            ("output_layer_norm", model.output.LayerNorm),
        ):
            layer.get_submodule(name).load_state_dict(given.state_dict())
