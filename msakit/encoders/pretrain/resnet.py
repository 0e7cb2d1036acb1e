"""Mini ResNet (He et al. 2016), supervised by the words of each picture's caption (Joulin et al. 2016).

One logistic output for every caption word that is neither in nearly all captions nor rare: the analogue of ImageNet's
classes for pictures that come with captions instead. Basic blocks, one a stage, widths 16, 32, 64, 128, input 64 px,
random flips and shifts. The body is saved without its classifier.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetForImageClassification

from msakit.encoders.pretrain.clip import process, vary
from msakit.encoders.pretrain.common import Pools, Pretraining, Stopwatch, draws, hold_out, optimise, pool_table, save

SIDE = 64


def train(out: Path, *, pools: Pools, seed: int = 0, steps: int = 700, batch: int = 64) -> None:
    """Write model and image processor to `out`; held-out metric: mean average precision over the words."""
    watch = Stopwatch()
    torch.manual_seed(seed)
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
    rows = draws(seen, batch, seed)
    generator = torch.Generator().manual_seed(seed)

    def loss(step: int) -> Float[Tensor, ""]:
        chosen = torch.from_numpy(next(rows))
        scores = model(pixel_values=vary(pixels[chosen], generator, reach=4)).logits
        return nn.functional.binary_cross_entropy_with_logits(scores, labels[chosen])

    before = _precision(model, pixels[held], labels[held])
    optimise(model, loss, steps, rate=3e-3, title="pre-train resnet")
    after = _precision(model, pixels[held], labels[held])

    def write(folder: Path) -> None:
        model.resnet.save_pretrained(folder)
        processor.save_pretrained(folder)

    record = Pretraining("words of the caption", "mean average precision", before, after, "up", steps, seed, watch())
    save(out, write, record, words=words)


def image_processor() -> ConvNextImageProcessorPil:
    """Resize to a square of 64 px, ImageNet mean and deviation."""
    return ConvNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_pct=1.0)


def caption_words(
    captions: list[str], rare: float = 0.01, common: float = 0.8
) -> tuple[list[str], Float[Tensor, "caption word"]]:
    """Words that at least `rare` and at most `common` of the captions hold, and which caption holds which (0 or 1)."""
    counter = CountVectorizer(binary=True, min_df=rare, max_df=common, stop_words="english")
    found = counter.fit_transform(captions)
    return list(counter.get_feature_names_out()), torch.tensor(found.toarray(), dtype=torch.float32)


@torch.no_grad()
def _precision(
    model: nn.Module, pixels: Float[Tensor, "image 3 height width"], labels: Float[Tensor, "image word"]
) -> float:
    model.eval()
    scores = model(pixel_values=pixels).logits
    held = labels.any(dim=0)  # a word that no held-out caption holds has no precision
    return float(average_precision_score(labels[:, held].numpy(), scores[:, held].numpy(), average="macro"))
