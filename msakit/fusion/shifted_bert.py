"""A BERT-like encoder whose token vectors are shifted by audio and vision on the way, and a head on its pooled output.

Sources: MAG-BERT (Rahman et al. 2020) with shift="mag"; Kim & Kim 2022, CMSBERT-CLR, reconstructed, with shift="cms"
and contrast=True; text alone with shift=None.  The shift sits at the input of encoder layer `layer`; 0, the published
place of MAG, is between the embeddings and the first layer.  It is inserted by a hook while the encoder runs, so BERT,
RoBERTa, DistilBERT and their kin serve as they come.

For the contrastive loss the text embedding is the encoder's pooled output.  clr_text="pre" (default) takes it from a
second pass without the shift, else audio and vision would leak into the text side and the alignment would be trivial:
it doubles the cost of the encoder.  "post" reuses the shifted pass.  Audio and vision go through a small encoder each
(linear, one transformer layer without positions, mean over words); all are projected to unit length.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from msakit.fusion.cms import CMS
from msakit.fusion.mag import MAG, token_mask
from msakit.fusion.pretrained import encoder_from_config, feature_size, load_encoder, plain_config

SHIFTS: tuple[str, ...] = ("mag", "cms")


def encoder_layers(encoder: nn.Module) -> nn.ModuleList:
    """The stack of layers of a BERT-like encoder, whatever it is called there."""
    config: Any = encoder.config
    for module in encoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == config.num_hidden_layers:
            return module
    raise ValueError(
        f"{type(encoder).__name__} has no list of {config.num_hidden_layers} layers; use BERT, RoBERTa, "
        "DistilBERT or another encoder that keeps its layers in one list"
    )


class SequenceEmbedding(nn.Module):
    """Audio or vision on word pieces -> one unit vector: linear, one transformer layer, mean over words, projection."""

    def __init__(self, dim: int, projection: int, width: int = 64, heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.inputs = nn.Linear(dim, width)
        self.layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout, batch_first=True)
        self.output = nn.Linear(width, projection)

    def forward(
        self, values: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, "batch projection"]:
        # An utterance without any word would attend to nothing: its first token, all zeros, stands in.
        mask = mask | (~mask.any(1, keepdim=True) & (torch.arange(mask.shape[1], device=mask.device) == 0))
        hidden = self.layer(self.inputs(values), src_key_padding_mask=~mask)
        pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return F.normalize(self.output(pooled), dim=-1)


class ShiftedBert(nn.Module, PyTorchModelHubMixin):
    """Text encoder + shift + head; build it with `from_encoder`, or from a configuration with an untrained encoder.

    text_config: `config.to_dict()` of the encoder; shift: None, "mag" or "cms"; layer: encoder layer whose input is
    shifted, from 0; beta, shift_dropout: see MAG; contexts, context_pooling: see CMS; contrast: also return unit
    embeddings "text", "audio", "vision" of size `projection`; head_dropout: before the last linear layer;
    n_classes: None for regression.
    """

    def __init__(
        self,
        text_config: dict[str, Any],
        d_audio: int,
        d_vision: int,
        shift: str | None = "cms",
        layer: int = 0,
        beta: float = 1.0,
        shift_dropout: float = 0.5,
        contexts: str = "both",
        context_pooling: str = "attention",
        contrast: bool = False,
        clr_text: str = "pre",
        projection: int = 128,
        head_dropout: float = 0.1,
        n_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder_from_config(text_config)
        d_text, depth = feature_size(self.encoder), len(encoder_layers(self.encoder))
        if shift is not None and shift not in SHIFTS:
            raise ValueError(f"shift is {shift!r}; choose None or one of {SHIFTS}")
        if not 0 <= layer < depth:
            raise ValueError(f"layer is {layer}; this encoder has layers 0 to {depth - 1}")
        if clr_text not in ("pre", "post"):
            raise ValueError(f"clr_text is {clr_text!r}; choose 'pre' or 'post'")
        self.layer, self.clr_text, self.contrast, self.n_classes = layer, clr_text, contrast, n_classes
        self.shift: MAG | CMS | None = None
        if shift == "mag":
            self.shift = MAG(d_text, d_audio, d_vision, beta, shift_dropout)
        elif shift == "cms":
            self.shift = CMS(d_text, d_audio, d_vision, beta, shift_dropout, contexts, context_pooling)
        self.head = nn.Sequential(nn.Dropout(head_dropout), nn.Linear(d_text, n_classes or 1))
        if contrast:
            self.embed_text = nn.Linear(d_text, projection)
            self.embed = nn.ModuleDict(
                {"audio": SequenceEmbedding(d_audio, projection), "vision": SequenceEmbedding(d_vision, projection)}
            )

    @classmethod
    def from_encoder(cls, path: str | Path, d_audio: int, d_vision: int, **settings: Any) -> "ShiftedBert":
        """A new model on the pre-trained encoder at this folder or hub id; settings as in the constructor."""
        encoder = load_encoder(path, "text")
        model = cls(plain_config(encoder), d_audio, d_vision, **settings)
        model.encoder.load_state_dict(encoder.state_dict())
        return model

    def forward_features(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """ "pooled", "batch d_text" (the encoder's pooler output, or its first token where it has none), and, with
        contrast, the unit embeddings "text", "audio" and "vision", "batch projection".

        batch: input_ids, attention_mask, and audio and vision on word pieces, "batch token dim", zero on special
        tokens and padding (not needed by the text-only model without contrast).
        """
        needed = {"input_ids", "attention_mask"}
        if self.shift is not None or self.contrast:
            needed |= {"audio", "vision"}
        if missing := sorted(needed - set(batch)):
            raise ValueError(f"missing in the batch: {missing}; it has {sorted(batch)}")
        features = {"pooled": self._pooled(batch, shifted=self.shift is not None)}
        if self.contrast:
            second = self.clr_text == "pre" and self.shift is not None
            text = self._pooled(batch, shifted=False) if second else features["pooled"]
            features["text"] = F.normalize(self.embed_text(text), dim=-1)
            words = token_mask(batch["audio"], batch["vision"])
            features |= {name: module(batch[name], words) for name, module in self.embed.items()}
        return features

    def forward_head(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """ "prediction": regression "batch", or logits "batch classes"."""
        prediction = self.head(features["pooled"])
        return {"prediction": prediction if self.n_classes else prediction.squeeze(-1)}

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        features = self.forward_features(batch)
        return self.forward_head(features) | features

    def _pooled(self, batch: dict[str, Any], shifted: bool) -> Float[Tensor, "batch d_text"]:
        # The hook lives for one pass only: copies of the model (weight averaging) would keep a hook to the original.
        handle = None
        if shifted:
            target = encoder_layers(self.encoder)[self.layer]
            handle = target.register_forward_pre_hook(self._hook(batch), with_kwargs=True)
        try:
            output = self.encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        finally:
            if handle is not None:
                handle.remove()
        pooled = getattr(output, "pooler_output", None)
        return output.last_hidden_state[:, 0] if pooled is None else pooled

    def _hook(self, batch: dict[str, Any]) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        shift, mask = self.shift, batch["attention_mask"].bool()

        def insert(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            if shift is None:
                raise ValueError("the text-only model has no shift to insert")
            if args:
                return (shift(args[0], batch["audio"], batch["vision"], mask), *args[1:]), kwargs
            hidden = shift(kwargs["hidden_states"], batch["audio"], batch["vision"], mask)
            return args, kwargs | {"hidden_states": hidden}

        return insert
