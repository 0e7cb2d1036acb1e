"""A BERT-like encoder whose token vectors are shifted by audio and vision on the way, and a head on its pooled output.

Sources: MAG-BERT (Rahman et al. 2020) with shift="mag"; Kim & Kim 2022, CMSBERT-CLR, reconstructed, with shift="cms"
and `contrast`; text alone with shift=None.  The shift sits at the input of encoder layer `layer`; 0, as published for
MAG, is between the embeddings and the first layer.  It is inserted by a hook while the encoder runs, so BERT, RoBERTa,
DistilBERT and their kin serve as they come.

For the contrastive loss each modality becomes one unit vector (:class:`PooledEmbedding`).  clr_text says where the text
side is taken.  "pre" (default): the hidden states that the shift is about to act on, so that audio and vision cannot
leak into the text side and make the alignment trivial.  "post": the encoder's pooled output behind the shift.  Neither
needs a second pass of the encoder.  Taking "pre" from the whole encoder run without the shift would double the cost.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from msakit.encoders.pretrained import encoder_from_config, feature_size, load_model, plain_config
from msakit.models import Grid, Input, Pretrained, TokenVectors
from msakit.models.cms import CMS
from msakit.models.layers.soft_alignment import SoftAlignment
from msakit.models.mag import MAG, NONVERBAL, token_mask


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


class PooledEmbedding(nn.Module):
    """A sequence -> one unit vector: linear and GELU at each step, mean over the steps of the mask, projection."""

    def __init__(self, dim: int, projection: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(dim, projection)
        self.output = nn.Linear(projection, projection)

    def forward(
        self, values: Float[Tensor, "batch step dim"], mask: Bool[Tensor, "batch step"]
    ) -> Float[Tensor, "batch projection"]:
        hidden = F.gelu(self.inputs(values)) * mask[..., None]
        # An utterance without any word becomes the projection's bias.
        pooled = hidden.sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        return F.normalize(self.output(pooled), dim=-1)


class ShiftedBert(nn.Module, PyTorchModelHubMixin):
    """Text encoder + shift + head; `build` puts it on a pre-trained encoder, the constructor on an untrained one.

    text_config: `config.to_dict()` of the encoder; d_audio, d_vision: sizes, 0 where the corpus has none; shift: None,
    "mag" or "cms"; layer: encoder layer whose input is shifted, from 0; beta, shift_dropout, width: see MAG; contexts,
    context_pooling: see CMS; soft: audio and vision come as frames, see SoftAlignment; contrast: modalities that are
    also returned as unit embeddings of size `projection`; clr_text: "pre" or "post"; head_dropout: before the last
    linear layer; n_classes: None for regression.
    """

    INPUTS: ClassVar[dict[str, tuple[type, ...]]] = {
        "text": (Pretrained,),
        "audio": (TokenVectors, Grid),
        "vision": (TokenVectors, Grid),
    }

    def __init__(
        self,
        text_config: dict[str, Any],
        d_audio: int = 0,
        d_vision: int = 0,
        shift: str | None = "cms",
        layer: int = 0,
        beta: float = 1.0,
        shift_dropout: float = 0.5,
        width: int = 1,
        contexts: str = "both",
        context_pooling: str = "attention",
        soft: bool = False,
        contrast: Sequence[str] = (),
        clr_text: str = "pre",
        projection: int = 128,
        head_dropout: float = 0.1,
        n_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder_from_config(text_config)
        d_text, depth = feature_size(self.encoder), len(encoder_layers(self.encoder))
        dims = {name: size for name, size in zip(NONVERBAL, (d_audio, d_vision), strict=True) if size}
        if not 0 <= layer < depth or clr_text not in ("pre", "post"):
            raise ValueError(f"layer is {layer}, clr_text {clr_text!r}: choose from 0 to {depth - 1}, 'pre' or 'post'")
        sizes = {"text": d_text, **dims}
        self.layer, self.clr_text, self.n_classes, self.modalities = layer, clr_text, n_classes, tuple(sizes)
        self.shift: MAG | None = None
        if shift == "mag":
            self.shift = MAG(d_text, dims, beta, shift_dropout, width)
        elif shift == "cms":
            self.shift = CMS(d_text, dims, beta, shift_dropout, contexts, context_pooling)
        elif shift is not None:
            raise ValueError(f"shift is {shift!r}; choose None, 'mag' or 'cms'")
        self.soft = nn.ModuleDict(
            {name: SoftAlignment(d_text, size) for name, size in dims.items()} if soft and shift else {}
        )
        self.head = nn.Sequential(nn.Dropout(head_dropout), nn.Linear(d_text, n_classes or 1))
        self.embed = nn.ModuleDict({name: PooledEmbedding(sizes[name], projection) for name in contrast})

    @classmethod
    def build(cls, inputs: Mapping[str, Input], n_classes: int | None = None, **args: Any) -> "ShiftedBert":
        """A new model on a pre-trained text encoder; args as in the constructor.

        Audio and vision as `Grid` are aligned softly, as `TokenVectors` they are aligned already.
        """
        text, others = inputs.get("text"), [inputs[name] for name in NONVERBAL if name in inputs]
        if not isinstance(text, Pretrained) or text.frozen:
            raise ValueError(f"the text encoder is fine-tuned: give a pre-trained one as text, not {text}")
        if len({type(each) for each in others}) > 1:
            raise ValueError("audio and vision are aligned alike: give both as TokenVectors, or both as Grid")
        dims: dict[str, Any] = {
            f"d_{name}": each.dim for name, each in inputs.items() if isinstance(each, TokenVectors | Grid)
        }
        encoder = load_model(text.path, "text")
        soft = any(isinstance(each, Grid) for each in others)
        model = cls(plain_config(encoder), soft=soft, n_classes=n_classes, **dims, **args)
        model.encoder.load_state_dict(encoder.state_dict())
        return model

    def forward_features(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """ "pooled", "batch d_text" (the encoder's pooler output, or its first token where it has none), and the unit
        embeddings of the modalities of `contrast`, "batch projection".

        batch: input_ids, attention_mask, and audio and vision on word pieces, "batch token dim", zero on special
        tokens and padding.  A soft model wants them as equally spaced frames, "batch frame dim", and `word_positions`,
        "batch token 2" (`word_pieces.word_positions`).  The text-only model without contrast needs neither.
        """
        pooled, hidden = self._run(batch)
        features = {"pooled": pooled}
        for name, module in self.embed.items():
            if name != "text":
                values, mask = batch[name], token_mask({name: batch[name]})
            elif self.clr_text == "pre":
                values, mask = hidden, batch["attention_mask"].bool()
            else:
                values, mask = pooled[:, None], torch.ones_like(pooled[:, :1], dtype=torch.bool)
            features[name] = module(values, mask)
        return features

    def forward_head(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """ "prediction": regression "batch", or logits "batch classes"."""
        prediction = self.head(features["pooled"])
        return {"prediction": prediction if self.n_classes else prediction.squeeze(-1)}

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        features = self.forward_features(batch)
        return self.forward_head(features) | features

    @torch.no_grad()
    def relative_shifts(self, batch: dict[str, Any]) -> Float[Tensor, "batch token"]:
        """How far each token is moved, in lengths of its own vector: 0 to beta; zero for the text-only model."""
        _, hidden = self._run(batch)
        if self.shift is None:
            return torch.zeros_like(hidden[..., 0])
        moved = self.shift.displacement(hidden, self._on_words(hidden, batch), batch["attention_mask"].bool())
        return moved.norm(dim=-1) / hidden.norm(dim=-1).clamp_min(torch.finfo(hidden.dtype).tiny)

    def _run(self, batch: dict[str, Any]) -> tuple[Float[Tensor, "batch d_text"], Float[Tensor, "batch token d_text"]]:
        """Pooled output, and the hidden states that the shift acts on, before it."""
        inputs: list[Tensor] = []

        def insert(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            inputs.append(args[0])
            if self.shift is None:
                return None
            return self.shift(args[0], self._on_words(args[0], batch), batch["attention_mask"].bool()), *args[1:]

        # The hook lives for one pass only: copies of the model (weight averaging) would keep a hook to the original.
        handle = encoder_layers(self.encoder)[self.layer].register_forward_pre_hook(insert)
        try:
            output = self.encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        finally:
            handle.remove()
        pooled = getattr(output, "pooler_output", None)
        return output.last_hidden_state[:, 0] if pooled is None else pooled, inputs[0]

    def _on_words(
        self, hidden: Float[Tensor, "batch token d_text"], batch: dict[str, Any]
    ) -> dict[str, Float[Tensor, "batch token _dim"]]:
        """Audio and vision on word pieces: as they come, or aligned softly by what the tokens hold."""
        if not self.soft:
            return {name: batch[name] for name in self.modalities[1:]}
        return {name: align(hidden, batch[name], batch["word_positions"]) for name, align in self.soft.items()}
