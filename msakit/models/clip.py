"""CLIP as a rival of joint fine-tuning: two towers trained for each other by contrast (Radford et al. 2021).

u and v are the projected image and text vectors, each of length 1, so that the sum of u∘v is CLIP's own similarity.

`ClipClassifier` puts one linear layer on [u; v; u∘v]: with frozen towers a linear probe, else fine-tuning.  The product
keeps CLIP's similarity in reach of a linear layer: on [u; v] alone text and image could only add up, and what lies
between them would be out of reach whatever the towers learn.  Radford et al. probe images alone.

`zero_shot` needs no training: a class is as probable as its prompts are near.  A post has an image and a text; their
vectors are added, which for one prompt is the mean of the two similarities.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from msakit.encoders.outputs import image_vectors, text_vectors
from msakit.encoders.pretrained import encoder_from_config, load_model, plain_config
from msakit.models import Pretrained


class ClipClassifier(nn.Module, PyTorchModelHubMixin):
    """One linear layer on a dual encoder's joint space; `build` takes the pre-trained model's weights.

    clip_config: `config.to_dict()` of a CLIP-like model; n_classes: None for regression; frozen: the towers keep their
    weights, run in eval mode and without gradients.
    """

    INPUTS: ClassVar[dict[str, tuple[type, ...]]] = {"image": (Pretrained,), "text": (Pretrained,)}
    FROZEN: ClassVar[dict[str, str]] = {"image": "projected", "text": "projected"}
    modalities = ("image", "text")

    def __init__(self, clip_config: dict[str, Any], n_classes: int | None = None, frozen: bool = False) -> None:
        super().__init__()
        self.clip: Any = encoder_from_config(clip_config)
        size = getattr(self.clip.config, "projection_dim", None)
        if size is None or not hasattr(self.clip, "get_image_features"):
            raise ValueError(f"{self.clip.config.model_type} is no dual encoder of text and image: give a CLIP model")
        self.n_classes, self.frozen = n_classes, frozen
        self.classifier = nn.Linear(3 * size, 1 if n_classes in (None, 2) else n_classes)
        # The temperature of the contrast has no part in the classification.
        self.clip.logit_scale.requires_grad_(False)
        if frozen:
            self.clip.requires_grad_(False).eval()

    @classmethod
    def build(cls, inputs: Mapping[str, Pretrained], n_classes: int | None = None, **args: Any) -> "ClipClassifier":
        """A new classifier on one pre-trained dual encoder, given for the text and for the image; args: none."""
        if set(inputs) != set(cls.modalities) or len(set(inputs.values())) > 1:
            raise ValueError(f"CLIP encodes text and image together: give both the same encoder, not {dict(inputs)}")
        (given,) = set(inputs.values())
        encoder = load_model(given.path, "joint")
        model = cls(plain_config(encoder), n_classes, given.frozen, **args)
        model.clip.load_state_dict(encoder.state_dict())
        return model

    def train(self, mode: bool = True) -> "ClipClassifier":
        """Training mode for all but frozen towers."""
        super().train(mode)
        if self.frozen:
            self.clip.eval()
        return self

    def forward_features(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """ "image_features" and "text_features", each "batch dim" of length 1; taken from the batch if it has them."""
        if self.frozen and "image_features" in batch:
            return {name: batch[name] for name in ("image_features", "text_features")}
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return {
                "image_features": image_vectors(self.clip, batch["pixel_values"]),
                "text_features": text_vectors(self.clip, batch["input_ids"], batch["attention_mask"]),
            }

    def forward_head(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """ "prediction" (regression "batch", logits "batch classes", of two classes "batch 1"), "image", "text" and
        "fused"."""
        image, text = features["image_features"], features["text_features"]
        fused = joined(image, text)
        prediction = self.classifier(fused)
        prediction = prediction if self.n_classes else prediction.squeeze(-1)
        return {"prediction": prediction, "image": image, "text": text, "fused": fused}

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """batch: input_ids, attention_mask and pixel_values; see `forward_head`."""
        return self.forward_head(self.forward_features(batch))


def joined(image: Float[Tensor, "batch dim"], text: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch features"]:
    """[u; v; u∘v], each scaled so that its entries are about 1 in size, as a linear layer wants them."""
    loud = image.shape[-1] ** 0.5
    return torch.cat([image * loud, text * loud, (image * loud) * (text * loud)], dim=-1)


def zero_shot(
    image: Float[Tensor, "segment dim"],
    text: Float[Tensor, "segment dim"],
    prompts: Sequence[Float[Tensor, "_prompts dim"]],
    temperature: float,
) -> Float[Tensor, "segment classes"]:
    """Probabilities of the classes without training.

    prompts: for each class the vectors of its prompts, of length 1; their mean, again of length 1, stands for it.
    temperature: the model's own, what CLIP divides similarities by.
    """
    classes = torch.stack([normalize(vectors.mean(0), dim=-1) for vectors in prompts])
    return ((image + text) / 2 @ classes.T / temperature).softmax(-1)
