"""A text and an image encoder are fine-tuned jointly under one small attention layer and a classifier.

Source: Toledo & Marcacini 2022, as their public code describes it.  Text: first token of the last hidden state;
image: pooled feature; each Linear 32 + ReLU, in the order [image; text].  Then one TransformerEncoderLayer (8 heads,
dropout .4, feed-forward 2048), Dropout .5, Linear 128, ReLU, Dropout .5, Linear to the outputs.

`attention_over="single"` is as published: the concatenation is ONE token of 64 dimensions, so the softmax runs over a
sequence of length 1 and attention is a linear map.  `attention_over="modalities"` is the correction: two tokens of 32
dimensions, one a modality, attend to each other and are concatenated afterwards, so that the classifier gets 64
dimensions either way.  The tokens need no position code: each modality has its own projection and bias.
Two classes have one logit, as published (binary cross entropy).  Frozen encoders are the ablation of the joint
fine-tuning.  Left out: the unused 32 -> 32 layer of the published code.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from msakit.encoders.outputs import image_feature
from msakit.encoders.pretrained import encoder_from_config, feature_size, load_model, plain_config
from msakit.models import Pretrained


class JointFusion(nn.Module, PyTorchModelHubMixin):
    """Toledo & Marcacini's model; `build` puts it on pre-trained encoders, the constructor on untrained ones.

    text_config, image_config: `config.to_dict()` of the encoders, of one or of both; frozen: modalities whose encoder
    keeps its weights, runs in eval mode and without gradients; n_classes: None for regression; size: width of each
    projection; heads must divide it.
    """

    INPUTS: ClassVar[dict[str, tuple[type, ...]]] = {"text": (Pretrained,), "image": (Pretrained,)}
    FROZEN: ClassVar[dict[str, str]] = {"text": "first", "image": "pooled"}

    def __init__(
        self,
        text_config: dict[str, Any] | None = None,
        image_config: dict[str, Any] | None = None,
        n_classes: int | None = None,
        attention_over: str = "modalities",
        frozen: Sequence[str] = (),
        size: int = 32,
        heads: int = 8,
        feedforward: int = 2048,
        hidden: int = 128,
        attention_dropout: float = 0.4,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if attention_over not in ("modalities", "single"):
            raise ValueError(f"attention_over is {attention_over!r}; choose 'modalities' or 'single' (as published)")
        # In the order of the concatenation, which is part of the meaning of saved weights.
        configs = {name: config for name, config in (("image", image_config), ("text", text_config)) if config}
        self.modalities, self.frozen = tuple(configs), tuple(frozen)
        self.attention_over, self.n_classes = attention_over, n_classes
        self.encoders, self.project = nn.ModuleDict(), nn.ModuleDict()
        for name, config in configs.items():
            self.encoders[name] = encoder_from_config(config)
            if name == "text" and hasattr(self.encoders[name], "pooler"):
                # The first token is taken as it is: a pooler would be weights without use or gradient.
                self.encoders[name].register_module("pooler", None)
            self.project[name] = nn.Sequential(nn.Linear(feature_size(self.encoders[name]), size), nn.ReLU())
        total = size * len(self.modalities)
        self.attention = nn.TransformerEncoderLayer(
            total if attention_over == "single" else size, heads, feedforward, attention_dropout, batch_first=True
        )
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(total, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1 if n_classes in (None, 2) else n_classes),
        )
        for name in self.frozen:
            self.encoders[name].requires_grad_(False).eval()

    @classmethod
    def build(cls, inputs: Mapping[str, Pretrained], n_classes: int | None = None, **args: Any) -> "JointFusion":
        """A new model on one or two pre-trained encoders; args as in the constructor."""
        parts = {"text": "text", "image": "vision"}
        encoders = {name: load_model(inputs[name].path, part) for name, part in parts.items() if name in inputs}
        configs: dict[str, Any] = {f"{name}_config": plain_config(encoder) for name, encoder in encoders.items()}
        frozen = [name for name, each in inputs.items() if each.frozen]
        model = cls(**configs, n_classes=n_classes, frozen=frozen, **args)
        for name, encoder in encoders.items():
            wanted = model.encoders[name].state_dict()
            model.encoders[name].load_state_dict({k: v for k, v in encoder.state_dict().items() if k in wanted})
        return model

    def train(self, mode: bool = True) -> "JointFusion":
        """Training mode for all but frozen encoders."""
        super().train(mode)
        for name in self.frozen:
            self.encoders[name].eval()
        return self

    def forward_features(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The encoders' vectors, "text_features" and "image_features", each "batch dim"; those of a frozen encoder are
        taken from the batch if it has them."""
        features = {}
        for name in self.modalities:
            key, frozen = f"{name}_features", name in self.frozen
            if frozen and key in batch:
                features[key] = batch[key]
                continue
            with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
                if name == "image":
                    features[key] = image_feature(self.encoders[name](pixel_values=batch["pixel_values"]))
                else:
                    output = self.encoders[name](input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
                    features[key] = output.last_hidden_state[:, 0]
        return features

    def forward_head(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """ "prediction" (regression "batch", logits "batch classes", of two classes "batch 1"), the projected "text"
        and "image" ("batch size"), and what the classifier takes, "fused"."""
        projected = {name: self.project[name](features[f"{name}_features"]) for name in self.modalities}
        tokens = torch.stack([projected[name] for name in self.modalities], dim=1)
        if self.attention_over == "single":
            tokens = tokens.flatten(1)[:, None]
        fused = self.attention(tokens).flatten(1)
        prediction = self.classifier(fused)
        return {"prediction": prediction if self.n_classes else prediction.squeeze(-1), "fused": fused} | projected

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """batch: input_ids, attention_mask and pixel_values, or stored vectors; see `forward_head`."""
        return self.forward_head(self.forward_features(batch))
