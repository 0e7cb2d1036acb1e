"""Mini CLIP (Radford et al. 2021): image-caption contrast on the scenes and faces of a pool.

Vision tower 4 layers of 64 on 64 px in patches of 16, text tower 3 layers of 64, projection 64, learnt temperature.
Every other batch holds faces alone, cut out as the visual encoder cuts them: among scenes a caption is found by its
object, among faces only by brows, eyes and mouth. Pictures are flipped and shifted at random. The vision tower's
positions start as 2-d sines, as loud as its patches: from the usual 0.02 a short run hardly learns where a mouth is.
Deviations: WordPiece instead of byte pairs; captions that agree are all positives of each other, because the pool has
far fewer captions than CLIP's (a plain diagonal would punish the model for seeing that two pictures are alike).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor

from msakit.data.faces import find_faces
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

SIDE, PATCH, MAX_LENGTH = 64, 16, 64


def train(out: Path, *, pools: Pools, seed: int = 0, steps: int = 500, batch: int = 48, vocabulary: int = 2000) -> None:
    """Write model, tokenizer and image processor to `out`; held-out metric: share of images whose caption is found
    among those of 64 (any of its wording counts)."""
    watch = Stopwatch()
    torch.manual_seed(seed)
    tokenizer = word_pieces(pool_texts(pools), vocabulary, MAX_LENGTH)
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    table = pool_table(pools["posts"]).dropna(subset=["image", "caption"])
    faces = (table["object"] == "face").to_numpy() if "object" in table else np.zeros(len(table), dtype=bool)
    pixels = process(table["image"], processor, faces)
    ids = tokenizer(table["caption"].tolist(), truncation=True, max_length=MAX_LENGTH)["input_ids"]
    same = table["caption"].astype("category").cat.codes.to_numpy().astype(np.int64)
    tower = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4, "projection_dim": 64}
    model = CLIPModel(
        CLIPConfig(
            projection_dim=64,
            vision_config={**tower, "num_hidden_layers": 4, "image_size": SIDE, "patch_size": PATCH},
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
    _place(model)
    seen, held = hold_out(len(table), seed)
    kinds = [part for part in (seen[~faces[seen]], seen[faces[seen]]) if len(part)]
    rows = [draws(part, batch, seed) for part in kinds]
    generator = torch.Generator().manual_seed(seed)

    def logits(
        chosen: Int[np.ndarray, " batch"], pictures: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch batch"]:
        padded, mask = pad([ids[row] for row in chosen])
        return model(input_ids=padded, attention_mask=mask, pixel_values=pictures).logits_per_image

    def loss(step: int) -> Float[Tensor, ""]:
        chosen = next(rows[step % len(rows)])
        scores = logits(chosen, vary(pixels[chosen], generator))
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
            best = logits(part, pixels[part]).argmax(dim=1).numpy()
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


@torch.no_grad()
def _place(model: CLIPModel) -> None:
    """Sines of row and column as the positions of the patches; [CLS] keeps its own."""
    side, width = SIDE // PATCH, 16  # four waves of 16 make the 64 of the tower
    waves = torch.arange(side)[:, None] * (0.5 ** torch.arange(width)) * torch.pi
    line = torch.cat([waves.sin(), waves.cos()], dim=1)
    rows, columns = line[:, None].expand(side, side, -1), line[None].expand(side, side, -1)
    grid = torch.cat([rows, columns], dim=-1).reshape(side * side, 4 * width)
    model.vision_model.embeddings.position_embedding.weight[1:] = 0.3 * grid


def process(
    paths: Iterable[str], processor: Any, faces: Bool[np.ndarray, " image"] | None = None
) -> Float[Tensor, "image 3 height width"]:
    """All pictures, processed, in memory: a pool is small. Where `faces` is true the face is cut out, if found."""
    parts = []
    for number, path in enumerate(paths):
        picture = np.asarray(read_image(Path(path)))
        if faces is not None and faces[number]:
            crops, found = find_faces(picture[None], SIDE)
            picture = crops[0] if found[0] else picture
        parts.append(processor(images=[picture], return_tensors="pt")["pixel_values"])
    return torch.cat(parts)


def vary(
    pixels: Float[Tensor, "batch 3 height width"], generator: torch.Generator
) -> Float[Tensor, "batch 3 height width"]:
    """Flip half of the batches left to right, and shift each by up to 4 px."""
    if torch.rand((), generator=generator) < 0.5:
        pixels = pixels.flip(-1)
    down, right = torch.randint(-4, 5, (2,), generator=generator).tolist()
    return pixels.roll((down, right), dims=(-2, -1))
