"""Mini ResNet (He et al. 2016), supervised by the object in the picture: the analogue of ImageNet's classes.

Basic blocks, one a stage, widths 16, 32, 64, 128, input 64 px, random flips and shifts. The body is saved without its
classifier.
"""

from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetForImageClassification

from msakit.encoders.pretrain.clip import process, vary
from msakit.encoders.pretrain.common import Pools, Pretraining, Stopwatch, draws, hold_out, optimise, pool_table, save

SIDE = 64


def train(out: Path, *, pools: Pools, seed: int = 0, steps: int = 300, batch: int = 64) -> None:
    """Write model and image processor to `out`; held-out metric: accuracy of the object."""
    watch = Stopwatch()
    torch.manual_seed(seed)
    processor = image_processor()
    table = pool_table(pools["posts"]).dropna(subset=["image", "object"])
    pixels = process(table["image"], processor)
    codes = table["object"].astype("category").cat
    labels = torch.tensor(codes.codes.to_numpy().copy(), dtype=torch.long)
    classes = [str(name) for name in codes.categories]
    model = ResNetForImageClassification(
        ResNetConfig(
            embedding_size=16,
            hidden_sizes=[16, 32, 64, 128],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            id2label=dict(enumerate(classes)),
        )
    )
    seen, held = hold_out(len(table), seed)
    rows = draws(seen, batch, seed)
    generator = torch.Generator().manual_seed(seed)

    def loss(step: int) -> Float[Tensor, ""]:
        chosen = torch.from_numpy(next(rows))
        scores = model(pixel_values=vary(pixels[chosen], generator, reach=4)).logits
        return nn.functional.cross_entropy(scores, labels[chosen])

    before = _accuracy(model, pixels[held], labels[held])
    optimise(model, loss, steps, rate=3e-3, title="pre-train resnet")
    after = _accuracy(model, pixels[held], labels[held])

    def write(folder: Path) -> None:
        model.resnet.save_pretrained(folder)
        processor.save_pretrained(folder)

    record = Pretraining("object classification", "accuracy", before, after, "up", steps, seed, watch())
    save(out, write, record, classes=classes)


def image_processor() -> ConvNextImageProcessorPil:
    """Resize to a square of 64 px, ImageNet mean and deviation."""
    return ConvNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_pct=1.0)


@torch.no_grad()
def _accuracy(model: nn.Module, pixels: Float[Tensor, "image 3 height width"], labels: Int[Tensor, " image"]) -> float:
    model.eval()
    return float((model(pixel_values=pixels).logits.argmax(-1) == labels).float().mean())
