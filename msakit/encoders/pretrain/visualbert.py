"""Mini VisualBERT (Li et al. 2019): masked language modelling with the image in view, and sentence-image matching.

3 layers of 64. The image enters as the grid of the mini ResNet's third stage (4 x 4 cells of 64 channels; Jiang et al.
2020 showed grids to serve as well as the paper's detected regions). Half of the captions are swapped for another
picture's; they carry no masked tokens, as the picture cannot help there. The ResNet is copied into `resnet/` of the
folder, so that the model brings its own image encoder.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import VisualBertConfig, VisualBertForPreTraining

from msakit.encoders.outputs import grid
from msakit.encoders.pretrain import common
from msakit.encoders.pretrain.clip import process
from msakit.encoders.pretrain.common import Pools, Task, mask_tokens, pad
from msakit.encoders.pretrained import load_frozen, load_image_processor

STAGE = 3  # hidden state of the ResNet: the embedder, then four stages
MAX_LENGTH = 64
BATCH = 64


def task(pools: Pools, seed: int, resnet: Path) -> Task:
    """`resnet`: folder of the mini ResNet. Held-out metric: loss of both tasks together, in nats."""
    tokenizer = common.word_pieces(common.pool_texts(pools), 2000, MAX_LENGTH)
    image_encoder, processor = load_frozen(resnet), load_image_processor(resnet)
    table = common.pool_table(pools["posts"]).dropna(subset=["image", "caption"])
    channels = image_encoder.config.hidden_sizes[STAGE - 1]
    cells = torch.cat([grid(image_encoder, part, channels) for part in process(table["image"], processor).split(128)])
    captions = table["caption"].tolist()
    ids = tokenizer(captions, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    model = VisualBertForPreTraining(
        VisualBertConfig(
            vocab_size=len(tokenizer),
            num_hidden_layers=3,
            max_position_embeddings=MAX_LENGTH,
            visual_embedding_dim=int(cells.shape[-1]),
            initializer_range=0.1,
            **common.SMALL,
        )
    )
    seen, held = common.hold_out(len(ids), seed)
    rows = common.draws(seen, BATCH, seed)

    def both(chosen: Int[np.ndarray, " batch"], draw: np.random.Generator, masks: torch.Generator) -> Float[Tensor, ""]:
        swapped = draw.random(len(chosen)) < 0.5
        texts = np.where(swapped, draw.choice(seen, len(chosen)), chosen)
        swapped = np.array([captions[a] != captions[b] for a, b in zip(texts, chosen, strict=True)])
        padded, mask = pad([ids[row] for row in texts])
        corrupted, labels = mask_tokens(padded, tokenizer, masks)
        wrong = torch.from_numpy(swapped)
        corrupted = torch.where(wrong[:, None], padded, corrupted)
        labels = labels.masked_fill(wrong[:, None], -100)
        seen_cells = cells[chosen]
        # The model adds labels of the cells to those of the words; cells have none.
        nothing = torch.full(seen_cells.shape[:2], -100)
        output = model(
            input_ids=corrupted,
            attention_mask=mask,
            visual_embeds=seen_cells,
            visual_attention_mask=torch.ones(seen_cells.shape[:2]),
            visual_token_type_ids=torch.ones(seen_cells.shape[:2], dtype=torch.long),
            labels=torch.cat([labels, nothing], dim=1),
            sentence_image_labels=wrong.long(),  # 0: the sentence belongs to the image, as in BERT's next sentence
        )
        return output.loss

    draw, masks = np.random.default_rng(seed), torch.Generator().manual_seed(seed)

    def held_loss() -> float:
        fixed, fixed_masks = np.random.default_rng(seed + 1), torch.Generator().manual_seed(seed + 1)
        parts = np.array_split(held, max(1, len(held) // 64))
        return float(np.mean([float(both(part, fixed, fixed_masks)) for part in parts]))

    return Task(
        objective="masked LM with image + sentence-image matching",
        metric="loss",
        better="down",
        measure=held_loss,
        saved={".": [model, tokenizer], "resnet": [image_encoder, processor]},
        steps=350,
        model=model,
        loss=lambda step: both(next(rows), draw, masks),
    )
