"""VisualBERT as a rival of joint fine-tuning: one BERT over the words and the regions of the image (Li et al. 2019).

Deviation: the regions of an object detector are replaced by the grid cells of an image encoder, one token a cell,
which Jiang et al. 2020 found to serve as well.  The image encoder stays as it is, as the detector does in the paper:
cells are computed once (`grid`) and BERT alone is fine-tuned.  Of the encoder's layers the last one is taken whose
cells are as wide as the regions of the pre-training; where none is, the last layer, and a linear map is learnt.
"""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn

from msakit.encoders.pretrained import encoder_from_config, load_encoder, plain_config

DROPOUT = 0.1


class VisualBertClassifier(nn.Module, PyTorchModelHubMixin):
    """VisualBERT's pooled first token and a linear layer; build it with `from_encoder`.

    config: `config.to_dict()` of a VisualBERT; cell: width of the grid cells given as "visual_embeds"; n_classes: None
    for regression; single_logit: two classes by one logit.
    """

    def __init__(
        self, config: dict[str, Any], cell: int, n_classes: int | None = None, single_logit: bool = False
    ) -> None:
        super().__init__()
        if single_logit and n_classes != 2:
            raise ValueError(f"single_logit is for two classes, not {n_classes}")
        self.bert = encoder_from_config(config)
        width = getattr(self.bert.config, "visual_embedding_dim", None)
        if width is None:
            raise ValueError(f"{self.bert.config.model_type} has no visual_embedding_dim: give a VisualBERT")
        self.n_classes = n_classes
        self.adapt = nn.Identity() if cell == width else nn.Linear(cell, width)
        size = self.bert.config.hidden_size
        self.classifier = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(size, 1 if single_logit else n_classes or 1))

    @classmethod
    def from_encoder(cls, path: str | Path, cell: int, **settings: Any) -> "VisualBertClassifier":
        """A new classifier on the pre-trained VisualBERT at this folder or hub id; settings as in the constructor."""
        encoder = load_encoder(path, "joint")
        model = cls(plain_config(encoder), cell, **settings)
        model.bert.load_state_dict(encoder.state_dict())
        return model

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """batch: input_ids, attention_mask and visual_embeds "batch cell dim".

        Returns "prediction" (regression "batch", logits "batch classes", or "batch 1") and "fused" "batch dim".
        """
        cells = self.adapt(batch["visual_embeds"])
        seen = torch.ones(cells.shape[:2], dtype=torch.long, device=cells.device)
        output = self.bert(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            visual_embeds=cells,
            visual_attention_mask=seen,
            visual_token_type_ids=seen,
        )
        prediction = self.classifier(output.pooler_output)
        prediction = prediction if self.n_classes else prediction.squeeze(-1)
        return {"prediction": prediction, "fused": output.pooler_output}


@torch.inference_mode()
def grid(
    encoder: nn.Module, pixels: Float[Tensor, "image 3 height width"], width: int
) -> Float[Tensor, "image cell _dim"]:
    """The cells of the last layer that is `width` wide, or else of the last layer, row by row; no [CLS] among them."""
    states = list(encoder(pixel_values=pixels, output_hidden_states=True).hidden_states)
    fitting = [state for state in states if state.shape[1 if state.ndim == 4 else 2] == width]
    chosen = (fitting or states)[-1]
    if chosen.ndim == 4:  # feature maps
        return chosen.flatten(2).transpose(1, 2)
    side = int(chosen.shape[1] ** 0.5)
    return chosen[:, chosen.shape[1] - side * side :]
