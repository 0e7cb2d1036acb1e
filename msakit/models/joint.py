"""A text and an image encoder are fine-tuned jointly under one small attention layer and a classifier.

Source: Toledo & Marcacini 2022, as their public code describes it.  Text: first token of the last hidden state;
image: pooled feature; each Linear 32 + ReLU, in the order [image; text].  Then one TransformerEncoderLayer (8 heads,
dropout .4, feed-forward 2048), Dropout .5, Linear 128, ReLU, Dropout .5, Linear to the outputs.

`attention_over="single"` is as published: the concatenation is ONE token of 64 dimensions, so the softmax runs over a
sequence of length 1 and attention is a linear map.  `attention_over="modalities"` is the correction: two tokens of 32
dimensions, one a modality, attend to each other and are concatenated afterwards, so that the classifier sees 64
dimensions either way.  The tokens need no position code: each modality has its own projection and bias.
`single_logit` is as published for two classes (binary cross entropy on one logit).  `frozen` is the ablation of the
joint fine-tuning.  Left out: the unused 32 -> 32 layer of the published code.
"""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn

from msakit.encoders.pretrained import encoder_from_config, feature_size, load_encoder, plain_config, set_frozen

# The order of the projected features in the concatenation: part of the meaning of saved weights.
MODALITIES: tuple[str, ...] = ("image", "text")
INPUTS: dict[str, str] = {"image": "pixel_values", "text": "input_ids"}


def image_feature(output: Any) -> Float[Tensor, "batch dim"]:
    """One vector an image from any image encoder's output: pooler output, else [CLS], else the mean over space."""
    pooled = getattr(output, "pooler_output", None)
    if pooled is not None:
        return pooled.flatten(1)
    hidden = output.last_hidden_state
    return hidden[:, 0] if hidden.ndim == 3 else hidden.flatten(2).mean(-1)


class JointFusion(nn.Module, PyTorchModelHubMixin):
    """Toledo & Marcacini's model; build it with `from_encoders`, or from configurations with untrained encoders.

    text_config, image_config: `config.to_dict()` of the encoders; modalities: "both", "text" or "image" (the other
    encoder is not built); frozen: encoders keep their weights, run in eval mode and without gradients; n_classes: None
    for regression; size: width of each projection; heads must divide it.
    """

    def __init__(
        self,
        text_config: dict[str, Any] | None = None,
        image_config: dict[str, Any] | None = None,
        n_classes: int | None = None,
        single_logit: bool = False,
        attention_over: str = "modalities",
        modalities: str = "both",
        frozen: bool = False,
        size: int = 32,
        heads: int = 8,
        feedforward: int = 2048,
        hidden: int = 128,
        attention_dropout: float = 0.4,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if modalities not in ("both", *MODALITIES):
            raise ValueError(f"modalities is {modalities!r}; choose from ('both', 'text', 'image')")
        if attention_over not in ("modalities", "single"):
            raise ValueError(f"attention_over is {attention_over!r}; choose 'modalities' or 'single' (as published)")
        if single_logit and n_classes != 2:
            raise ValueError(f"single_logit is for two classes, not {n_classes}")
        self.modalities = MODALITIES if modalities == "both" else (modalities,)
        self.attention_over, self.frozen, self.n_classes = attention_over, frozen, n_classes
        self.encoders, self.project = nn.ModuleDict(), nn.ModuleDict()
        for name in self.modalities:
            config = {"text": text_config, "image": image_config}[name]
            if config is None:
                raise ValueError(f"modalities={modalities!r} needs {name}_config")
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
            nn.Linear(hidden, 1 if single_logit else n_classes or 1),
        )
        if frozen:
            set_frozen(self.encoders)

    @classmethod
    def from_encoders(
        cls, text: str | Path | None = None, image: str | Path | None = None, **settings: Any
    ) -> "JointFusion":
        """A new model on the pre-trained encoders at these folders or hub ids; settings as in the constructor."""
        modalities = settings.get("modalities", "both")
        paths = {"text": text, "image": image}
        encoders = {
            name: load_encoder(path, "vision" if name == "image" else name)
            for name, path in paths.items()
            if path is not None and modalities in ("both", name)
        }
        configs: dict[str, Any] = {f"{name}_config": plain_config(encoder) for name, encoder in encoders.items()}
        model = cls(**configs, **settings)
        for name, encoder in encoders.items():
            wanted = model.encoders[name].state_dict()
            model.encoders[name].load_state_dict({k: v for k, v in encoder.state_dict().items() if k in wanted})
        return model

    def train(self, mode: bool = True) -> "JointFusion":
        """Training mode for all but frozen encoders."""
        super().train(mode)
        if self.frozen:
            self.encoders.eval()
        return self

    def forward_features(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The encoders' vectors, "text_features" and "image_features", each "batch dim".

        Frozen, they never change: compute them once and put them in the batches in place of the raw inputs.
        """
        features = {}
        for name in self.modalities:
            key = f"{name}_features"
            if key in batch:
                if not self.frozen:
                    raise ValueError(
                        f"the batch brings {key}, but the encoders are being fine-tuned: "
                        f"give {INPUTS[name]}, or build the model with frozen=True"
                    )
                features[key] = batch[key]
            elif INPUTS[name] not in batch:
                raise ValueError(f"the batch has neither {INPUTS[name]} nor {key}; it has {sorted(batch)}")
            else:
                with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                    features[key] = self._encode(name, batch)
        return features

    def forward_head(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """ "prediction" (regression "batch", logits "batch classes", or "batch 1" for the single logit), the projected
        "text" and "image" ("batch size"), and what the classifier sees, "fused"."""
        projected = {name: self.project[name](features[f"{name}_features"]) for name in self.modalities}
        tokens = torch.stack([projected[name] for name in self.modalities], dim=1)
        if self.attention_over == "single":
            tokens = tokens.flatten(1)[:, None]
        fused = self.attention(tokens).flatten(1)
        prediction = self.classifier(fused)
        return {"prediction": prediction if self.n_classes else prediction.squeeze(-1), "fused": fused} | projected

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """batch: input_ids, attention_mask and pixel_values (or cached features); see `forward_head`."""
        return self.forward_head(self.forward_features(batch))

    def _encode(self, name: str, batch: dict[str, Any]) -> Float[Tensor, "batch dim"]:
        if name == "image":
            return image_feature(self.encoders[name](pixel_values=batch["pixel_values"]))
        output = self.encoders[name](input_ids=batch["input_ids"], attention_mask=batch.get("attention_mask"))
        return output.last_hidden_state[:, 0]
