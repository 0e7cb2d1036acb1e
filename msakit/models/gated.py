"""Each modality is pooled over time by attention into one embedding; gates decide how much of each enters the sum.

Source: Ando et al. 2022, the Unimodal Encoders and Gated Decoder (UEGD), as its authors' public code describes it.
For modality m with frames x_t:  h_t = Dropout(ReLU(LN(FC x_t))),  A = softmax_t(W2 tanh(W1 h_t + b)), 4 heads,
z_m = FC [A_1 h; ...; A_4 h].  Gates are independent: a_m = sigmoid(w_m [z_vision; z_audio; z_text] + b_m), not a
softmax, and z = sum_m a_m z_m.  With `n_layers` the input is a learnt mixture of an encoder's hidden layers.
E = 128, Z = 64 are the published sizes for MOSI, E = 256, Z = 128 those for MOSEI.

Deviations: frames are packed (only the softmax of the pooling has slots of padding, with weight zero); a segment
without any frame in a modality gets a zero embedding there; classification has one logit a class; the probability of
dropout is rounded as :mod:`msakit.models.layers.dropout` says.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int
from torch import Tensor, nn

from msakit.models import Frames
from msakit.models.layers.dropout import Dropout
from msakit.models.layers.packed import Layout, Packed, layout_of

# The order of the embeddings inside the decoder's input: part of the meaning of saved weights.
MODALITIES: tuple[str, ...] = ("vision", "audio", "text")


class WeightedLayers(nn.Module):
    """Mixture of hidden layers: softmax over one learnable scalar a layer, all zero (the plain mean) at first."""

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        self.scalars = nn.Parameter(torch.zeros(n_layers))

    def weights(self) -> Float[Tensor, " layer"]:
        return self.scalars.softmax(0)

    def forward(self, frames: Float[Tensor, "layer frames dim"]) -> Float[Tensor, "frames dim"]:
        return (self.weights() @ frames.flatten(1)).view(frames.shape[1:])


class AttentivePooling(nn.Module):
    """Multi-head self-attentive pooling of packed frames: A = softmax_t(W2 tanh(W1 x + b)); heads are concatenated."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.hidden = nn.Linear(dim, dim)
        self.score = nn.Linear(dim, heads, bias=False)

    def forward(
        self, frames: Float[Tensor, "frames dim"], lengths: Int[Tensor, " batch"], layout: Layout | None = None
    ) -> tuple[Float[Tensor, "batch heads_dim"], Float[Tensor, "frames heads"]]:
        """Pooled vectors (zero for an empty segment) and the attention, which sums to 1 over a segment's frames."""
        owner, position, longest = layout_of(lengths) if layout is None else layout
        batch, slot = len(lengths), owner * longest + position
        scores = self.score(self.hidden(frames).tanh())
        # Only here is there a rectangle, "batch * longest" slots, of which each softmax is masked to its segment's own.
        padded = frames.new_zeros(batch * longest, frames.shape[-1]).index_copy(0, slot, frames)
        padded_scores = scores.new_zeros(batch * longest, self.heads).index_copy(0, slot, scores)
        outside = torch.arange(longest, device=lengths.device) >= lengths[:, None]
        lowest = torch.finfo(scores.dtype).min
        attention = padded_scores.view(batch, longest, self.heads).masked_fill(outside[..., None], lowest).softmax(1)
        pooled = torch.bmm(attention.transpose(1, 2), padded.view(batch, longest, frames.shape[-1]))
        return pooled.flatten(1), attention.flatten(0, 1).index_select(0, slot)


class UnimodalEncoder(nn.Module):
    """Packed frames of one modality -> one embedding a segment."""

    def __init__(self, dim: int, width: int, embedding: int, heads: int, dropout: float, n_layers: int | None) -> None:
        super().__init__()
        self.mix = WeightedLayers(n_layers) if n_layers else None
        self.project = nn.Sequential(nn.Linear(dim, width), nn.LayerNorm(width), nn.ReLU(), Dropout(dropout))
        self.pool = AttentivePooling(width, heads)
        self.output = nn.Linear(heads * width, embedding)

    def forward(self, packed: Packed) -> tuple[Float[Tensor, "batch embedding"], Float[Tensor, "frames heads"]]:
        frames = packed.frames if self.mix is None else self.mix(packed.frames)
        pooled, attention = self.pool(self.project(frames), packed.lengths, packed.layout)
        # Without frames there is nothing to embed: the modality counts as absent, its vector is zero.
        return self.output(pooled) * (packed.lengths > 0)[:, None], attention


class Decoder(nn.Module):
    """z = sum_m a_m z_m with one independent sigmoid gate a modality, or, its ablation, [z_1; z_2; z_3]; then
    FC + LN + ReLU + Dropout + FC."""

    def __init__(self, embedding: int, outputs: int, dropout: float, gated: bool) -> None:
        super().__init__()
        every = len(MODALITIES) * embedding
        self.gates = nn.Linear(every, len(MODALITIES)) if gated else None
        self.output = nn.Sequential(
            nn.Linear(embedding if gated else every, embedding),
            nn.LayerNorm(embedding),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(embedding, outputs),
        )

    def forward(
        self, stacked: Float[Tensor, "batch modality embedding"]
    ) -> tuple[Float[Tensor, "batch outputs"], Float[Tensor, "batch _fused"], Float[Tensor, "batch modality"] | None]:
        if self.gates is None:
            return self.output(stacked.flatten(1)), stacked.flatten(1), None
        gates = self.gates(stacked.flatten(1)).sigmoid()
        fused = (gates[:, :, None] * stacked).sum(1)
        return self.output(fused), fused, gates


class GatedFusion(nn.Module, PyTorchModelHubMixin):
    """Ando et al.'s model for any one, two or three of vision, audio and text.

    dims: feature size of each modality in use; n_layers: number of hidden layers to mix, for the modalities whose
    frames come as "layer frames dim"; width: E; embedding: Z; decoder: "gated" or "concat"; n_classes: None for
    regression.  A modality left out of `dims` is a zero vector in the same decoder.
    """

    INPUTS: ClassVar[dict[str, tuple[type, ...]]] = dict.fromkeys(MODALITIES, (Frames,))

    def __init__(
        self,
        dims: dict[str, int],
        width: int = 128,
        embedding: int = 64,
        heads: int = 4,
        dropout: float = 0.2,
        decoder: str = "gated",
        n_layers: dict[str, int] | None = None,
        n_classes: int | None = None,
    ) -> None:
        super().__init__()
        if decoder not in ("gated", "concat"):
            raise ValueError(f"unknown decoder {decoder!r}; choose 'gated' or 'concat'")
        self.modalities, self.n_classes = tuple(sorted(dims, key=MODALITIES.index)), n_classes
        layers = n_layers or {}
        self.encoders = nn.ModuleDict(
            {m: UnimodalEncoder(dims[m], width, embedding, heads, dropout, layers.get(m)) for m in self.modalities}
        )
        self.decoder = Decoder(embedding, n_classes or 1, dropout, decoder == "gated")

    @classmethod
    def build(cls, inputs: Mapping[str, Frames], n_classes: int | None = None, **args: Any) -> "GatedFusion":
        """A new model of these modalities; args as in the constructor (width, embedding, heads, dropout, decoder)."""
        dims = {name: each.dim for name, each in inputs.items()}
        n_layers = {name: each.n_layers for name, each in inputs.items() if each.n_layers is not None}
        return cls(dims, n_layers=n_layers, n_classes=n_classes, **args)

    def forward_features(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Embeddings by modality name, "batch embedding"; `attention_<modality>`, packed "frames heads"; and
        `layer_weights_<modality>`, "layer", where layers are mixed."""
        features: dict[str, Tensor] = {}
        for name in self.modalities:
            encoder = cast(UnimodalEncoder, self.encoders[name])
            features[name], features[f"attention_{name}"] = encoder(batch[name])
            if encoder.mix is not None:
                features[f"layer_weights_{name}"] = encoder.mix.weights()
        return features

    def forward_head(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Prediction ("batch", or logits "batch classes"), "fused" ("batch embedding"; concatenated in the concat
        decoder), and "gates" ("batch modality", in [0, 1], in the order of `modalities`; only of the gated decoder)."""
        absent = torch.zeros_like(features[self.modalities[0]])
        stacked = torch.stack([features[m] if m in self.modalities else absent for m in MODALITIES], dim=1)
        prediction, fused, gates = self.decoder(stacked)
        output = {"prediction": prediction if self.n_classes else prediction.squeeze(-1), "fused": fused}
        if gates is not None:
            output["gates"] = gates[:, [MODALITIES.index(m) for m in self.modalities]]
        return output

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """`batch` maps each modality to a Packed; see `forward_features` and `forward_head` for what comes back."""
        features = self.forward_features(batch)
        return self.forward_head(features) | features
