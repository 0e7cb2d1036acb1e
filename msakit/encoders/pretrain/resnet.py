"""Mini ResNet (He et al. 2016), supervised by the words of each picture's caption (Joulin et al. 2016).

One logistic output for every caption word that is neither in nearly all captions nor rare: the analogue of ImageNet's
classes for pictures that come with captions instead. Basic blocks, one a stage, widths 16, 32, 64, 128, input 64 px,
random flips and shifts. The body is saved without its classifier.
"""

import torch
from jaxtyping import Float
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetForImageClassification

from msakit.encoders.pretrain.clip import process, vary
from msakit.encoders.pretrain.common import Pools, Task, draws, hold_out, pool_table

SIDE, BATCH = 64, 64


def task(pools: Pools, seed: int) -> Task:
    """Held-out metric: mean average precision over the words."""
    processor = image_processor()
    table = pool_table(pools["posts"]).dropna(subset=["image", "caption"])
    pixels = process(table["image"], processor)
    words, labels = caption_words(list(table["caption"]))
    model = ResNetForImageClassification(
        ResNetConfig(
            embedding_size=16,
            hidden_sizes=[16, 32, 64, 128],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            id2label=dict(enumerate(words)),
        )
    )
    seen, held = hold_out(len(table), seed)
    rows = draws(seen, BATCH, seed)
    generator = torch.Generator().manual_seed(seed)

    def loss(step: int) -> Float[Tensor, ""]:
        chosen = torch.from_numpy(next(rows))
        scores = model(pixel_values=vary(pixels[chosen], generator, reach=4)).logits
        return nn.functional.binary_cross_entropy_with_logits(scores, labels[chosen])

    return Task(
        objective="words of the caption",
        metric="mean average precision",
        better="up",
        measure=lambda: _precision(model, pixels[held], labels[held]),
        saved={".": [model.resnet, processor]},
        steps=700,
        model=model,
        loss=loss,
        rate=3e-3,
    )


def image_processor() -> ConvNextImageProcessorPil:
    """Resize to a square of 64 px, ImageNet mean and deviation."""
    return ConvNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_pct=1.0)


def caption_words(captions: list[str]) -> tuple[list[str], Float[Tensor, "caption word"]]:
    """Words that 1 to 80 % of the captions hold, and which caption holds which (0 or 1)."""
    counter = CountVectorizer(binary=True, min_df=0.01, max_df=0.8, stop_words="english")
    found = counter.fit_transform(captions)
    return list(counter.get_feature_names_out()), torch.tensor(found.toarray(), dtype=torch.float32)


def _precision(
    model: nn.Module, pixels: Float[Tensor, "image 3 height width"], labels: Float[Tensor, "image word"]
) -> float:
    scores = model(pixel_values=pixels).logits
    held = labels.any(dim=0)  # a word that no held-out caption holds has no precision
    return float(average_precision_score(labels[:, held].numpy(), scores[:, held].numpy(), average="macro"))
