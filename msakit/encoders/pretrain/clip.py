"""Mini CLIP (Radford et al. 2021): image-caption contrast on the scenes and faces of a pool.

Vision tower 4 layers of 64 on 64 px in patches of 16, text tower 3 layers of 64, projection 64, learnt temperature.
Every other batch holds faces alone, cut out as the visual encoder cuts them: among scenes a caption is found by its
object, among faces only by brows, eyes and mouth. Pictures are flipped and shifted at random. The vision tower starts
from whitened patches (Coates & Ng 2012) and 2-d sines as positions, as loud as the patches: from the usual start it
sees the colour of skin and wall, and a pool of 2,000 pictures never teaches it where a mouth is.
A text is a random choice of the caption's phrases (CLIP draws a random sentence of its longer texts), and every
picture that carries all of them is right for it.
A linear tagger on the image side names the phrases at the same time and is thrown away after: the contrast alone needs
far more pictures than a pool has before it tells faces apart.
Deviations: this tagger; WordPiece instead of byte pairs; many right pictures for a text, because a pool has far fewer
captions than CLIP's web and a plain diagonal would punish the model for seeing that two pictures are alike.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor

from msakit.data.faces import find_faces
from msakit.data.media import read_image
from msakit.encoders.pretrain.common import Pools, Task, draws, hold_out, pad, pool_table, pool_texts, word_pieces

SIDE, PATCH, MAX_LENGTH = 64, 16, 64
BATCH = 48
TAGS = 3.0  # weight of the tagger's loss
PHRASE = re.compile(r"\s*(?:[,.;]|\b(?:and|with|on|in|under|beside|next to|there is)\b)\s*")


def task(pools: Pools, seed: int) -> Task:
    """Held-out metric: share of images for which the best of 64 captions is true of them."""
    tokenizer = word_pieces(pool_texts(pools), 2000, MAX_LENGTH)
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    table = pool_table(pools["posts"]).dropna(subset=["image", "caption"])
    faces = (table["object"] == "face").to_numpy() if "object" in table else np.zeros(len(table), dtype=bool)
    pixels = process(table["image"], processor, faces)
    phrases = _phrases(table["caption"].tolist(), faces)
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
    seen, held = hold_out(len(table), seed)
    # Faces, if any, say which details matter: among all patches those of skies and walls outnumber them.
    _start_from_patches(model, pixels[seen[faces[seen]] if faces[seen].any() else seen])
    kinds = [part for part in (seen[~faces[seen]], seen[faces[seen]]) if len(part)]
    rows = [draws(part, BATCH, seed) for part in kinds]
    generator = torch.Generator().manual_seed(seed)
    draw = np.random.default_rng(seed)
    names = sorted({name for row in seen for name in phrases[row]})
    tags = torch.tensor([[float(name in parts) for name in names] for parts in phrases])
    tagger = nn.Linear(64, len(names))

    def outputs_and_truth(
        chosen: Int[np.ndarray, " batch"], texts: list[list[str]], pictures: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Any, Float[Tensor, "image text"]]:
        ids, mask = pad(tokenizer([" , ".join(text) for text in texts], truncation=True)["input_ids"])
        outputs = model(input_ids=ids, attention_mask=mask, pixel_values=pictures)
        truth = [[set(text) <= set(phrases[row]) for text in texts] for row in chosen]
        return outputs, torch.tensor(truth, dtype=torch.float32)

    def loss(step: int) -> Float[Tensor, ""]:
        chosen = next(rows[step % len(rows)])
        texts = [
            [phrases[row][k] for k in draw.permutation(len(phrases[row]))[: draw.integers(1, len(phrases[row]) + 1)]]
            for row in chosen
        ]
        outputs, truth = outputs_and_truth(chosen, texts, vary(pixels[chosen], generator, reach=1))
        scores = outputs.logits_per_image
        images = (scores.log_softmax(dim=1) * truth).sum(dim=1) / truth.sum(dim=1)
        captions = (scores.log_softmax(dim=0) * truth).sum(dim=0) / truth.sum(dim=0)
        contrast = -(images.mean() + captions.mean()) / 2
        named = tagger(outputs.vision_model_output.pooler_output)
        naming = nn.functional.binary_cross_entropy_with_logits(named, tags[chosen], reduction="sum") / BATCH
        return contrast + TAGS * naming

    def found() -> float:
        right = 0.0
        for start in range(0, len(held), 64):
            part = held[start : start + 64]
            outputs, truth = outputs_and_truth(part, [phrases[row] for row in part], pixels[part])
            right += float(truth.gather(1, outputs.logits_per_image.argmax(dim=1, keepdim=True)).sum())
        return right / len(held)

    return Task(
        objective="image-caption contrast",
        metric="caption found",
        better="up",
        measure=found,
        saved={".": [model, CLIPProcessor(image_processor=processor, tokenizer=tokenizer)]},
        steps=700,
        model=nn.ModuleList([model, tagger]),
        loss=loss,
        rate=7e-4,
    )


def _phrases(captions: list[str], faces: Bool[np.ndarray, " image"]) -> list[list[str]]:
    """The phrases of each caption, without those that over a quarter of its kind (faces, scenes) have: "a face"."""
    split = [sorted({part for part in PHRASE.split(caption) if part}) or [caption] for caption in captions]
    common: dict[bool, set[str]] = {}
    for kind in (False, True):
        rows = [parts for parts, face in zip(split, faces, strict=True) if face == kind]
        counts = Counter(part for parts in rows for part in parts)
        common[kind] = {part for part, count in counts.items() if count > len(rows) / 4}
    return [
        [part for part in parts if part not in common[bool(face)]] or parts
        for parts, face in zip(split, faces, strict=True)
    ]


@torch.no_grad()
def _start_from_patches(model: CLIPModel, pixels: Float[Tensor, "image 3 height width"]) -> None:
    """Principal components of the patches, each at the same loudness; sines of row and column as their positions."""
    embeddings: Any = model.vision_model.embeddings
    patches = pixels.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
    patches = patches - patches.mean(dim=0)
    spread, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = embeddings.patch_embedding.weight
    kept = slice(-len(filters), None)
    # A little of the largest keeps the faintest components from being noise alone.
    whitened = directions[:, kept] / (spread[kept] + 1e-4 * spread[-1]).sqrt()
    filters.copy_(whitened.T.reshape(filters.shape))
    side, width = SIDE // PATCH, filters.shape[0] // 4
    waves = torch.arange(side)[:, None] * (0.5 ** torch.arange(width)) * torch.pi
    line = torch.cat([waves.sin(), waves.cos()], dim=1)
    rows, columns = line[:, None].expand(side, side, -1), line[None].expand(side, side, -1)
    embeddings.position_embedding.weight[1:] = torch.cat([rows, columns], dim=-1).flatten(0, 1)


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
    pixels: Float[Tensor, "batch 3 height width"], generator: torch.Generator, reach: int
) -> Float[Tensor, "batch 3 height width"]:
    """Flip half of the batches left to right, and shift each by up to `reach` px."""
    if torch.rand((), generator=generator) < 0.5:
        pixels = pixels.flip(-1)
    down, right = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
    return pixels.roll((down, right), dims=(-2, -1))
