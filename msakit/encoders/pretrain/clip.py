"""Mini CLIP (Radford et al. 2021): image-caption contrast on the scenes and faces of a pool.

Vision tower 4 layers of 64 on 64 px in patches of 8, text tower 3 layers of 64, projection 64, learnt temperature.
Deviations: WordPiece instead of byte pairs; captions that agree are all positives of each other, because the pool has
far fewer captions than CLIP's (a plain diagonal would punish the model for seeing that two pictures are alike).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor

from msakit.data.media import read_image
from msakit.encoders.pretrain.common import (
    Pools,
    Pretraining,
    Stopwatch,
    draws,
    hold_out,
    optimise,
    pad,
    pool_table,
    pool_texts,
    save,
    word_pieces,
)

SIDE, MAX_LENGTH = 64, 64


def train(out: Path, *, pools: Pools, seed: int = 0, steps: int = 220, batch: int = 64, vocabulary: int = 2000) -> None:
    """Write model, tokenizer and image processor to `out`; held-out metric: share of images whose caption is found
    among those of 64 (any of its wording counts)."""
    watch = Stopwatch()
    torch.manual_seed(seed)
    tokenizer = word_pieces(pool_texts(pools), vocabulary, MAX_LENGTH)
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    table = pool_table(pools["posts"]).dropna(subset=["image", "caption"])
    pixels = process(table["image"], processor)
    ids = tokenizer(table["caption"].tolist(), truncation=True, max_length=MAX_LENGTH)["input_ids"]
    same = table["caption"].astype("category").cat.codes.to_numpy().astype(np.int64)
    tower = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4, "projection_dim": 64}
    model = CLIPModel(
        CLIPConfig(
            projection_dim=64,
            vision_config={**tower, "num_hidden_layers": 4, "image_size": SIDE, "patch_size": 8},
            text_config={
                **tower,
                "num_hidden_layers": 3,
                "vocab_size": len(tokenizer),
                "max_position_embeddings": MAX_LENGTH,
                "pad_token_id": tokenizer.pad_token_id,
                "bos_token_id": tokenizer.cls_token_id,
                "eos_token_id": tokenizer.sep_token_id,  # where the text is pooled
            },
        )
    )
    seen, held = hold_out(len(table), seed)
    rows = draws(seen, batch, seed)

    def logits(chosen: Int[np.ndarray, " batch"]) -> Float[Tensor, "image text"]:
        padded, mask = pad([ids[row] for row in chosen])
        return model(input_ids=padded, attention_mask=mask, pixel_values=pixels[chosen]).logits_per_image

    def loss(step: int) -> Float[Tensor, ""]:
        chosen = next(rows)
        scores = logits(chosen)
        target = torch.from_numpy(same[chosen][:, None] == same[chosen][None]).float()
        target = target / target.sum(dim=1, keepdim=True)  # symmetric, so it serves both directions
        images, texts = scores.log_softmax(dim=1), scores.T.log_softmax(dim=1)
        return -(target * (images + texts)).sum(dim=1).mean() / 2

    @torch.no_grad()
    def found() -> float:
        model.eval()
        right = 0
        for start in range(0, len(held), 64):
            part = held[start : start + 64]
            best = logits(part).argmax(dim=1).numpy()
            right += int((same[part][best] == same[part]).sum())
        return right / len(held)

    before = found()
    optimise(model, loss, steps, rate=1e-3, title="pre-train clip")
    after = found()

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        CLIPProcessor(image_processor=processor, tokenizer=tokenizer).save_pretrained(folder)

    record = Pretraining("image-caption contrast", "caption found", before, after, "up", steps, seed, watch())
    save(out, write, record)


def process(paths: Iterable[str], processor: Any) -> Float[Tensor, "image 3 height width"]:
    """All pictures, processed, in memory: a pool is small."""
    parts = [processor(images=[read_image(Path(path))], return_tensors="pt")["pixel_values"] for path in paths]
    return torch.cat(parts)
