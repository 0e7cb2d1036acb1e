"""VisualBERT as a rival of joint fine-tuning: one BERT over the words and the regions of the image (Li et al. 2019).

Deviation: the regions of an object detector are replaced by the grid cells of an image encoder, one token a cell,
which Jiang et al. 2020 found to serve as well.  The image encoder stays as it is, as the detector does in the paper:
cells are computed once (:func:`msakit.encoders.outputs.grid`) and BERT alone is fine-tuned.  Of the encoder's layers
the last one is taken whose cells are as wide as the regions of the pre-training; where none is, the last layer, and a
linear map is learnt.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from msakit.encoders.pretrained import encoder_from_config, load_model, plain_config
from msakit.models import Grid, Input, Pretrained

DROPOUT = 0.1


class VisualBertClassifier(nn.Module, PyTorchModelHubMixin):
    """VisualBERT's pooled first token and a linear layer; `build` takes the pre-trained model's weights.

    config: `config.to_dict()` of a VisualBERT; cell: width of the grid cells of the image; n_classes: None for
    regression.
    """

    INPUTS: ClassVar[dict[str, tuple[type, ...]]] = {"text": (Pretrained,), "image": (Grid,)}
    modalities = ("text", "image")

    def __init__(self, config: dict[str, Any], cell: int, n_classes: int | None = None) -> None:
        super().__init__()
        self.bert = encoder_from_config(config)
        width = getattr(self.bert.config, "visual_embedding_dim", None)
        if width is None:
            raise ValueError(f"{self.bert.config.model_type} has no visual_embedding_dim: give a VisualBERT")
        self.n_classes = n_classes
        self.adapt = nn.Identity() if cell == width else nn.Linear(cell, width)
        size = self.bert.config.hidden_size
        outputs = 1 if n_classes in (None, 2) else n_classes
        self.classifier = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(size, outputs))

    @classmethod
    def build(cls, inputs: Mapping[str, Input], n_classes: int | None = None, **args: Any) -> "VisualBertClassifier":
        """A new classifier on a pre-trained VisualBERT, given as the encoder of the text; args: none."""
        text, image = inputs.get("text"), inputs.get("image")
        if not isinstance(text, Pretrained) or text.frozen or not isinstance(image, Grid):
            raise ValueError(f"VisualBERT is fine-tuned on a text and the cells of an image, not on {dict(inputs)}")
        encoder = load_model(text.path, "joint")
        model = cls(plain_config(encoder), image.dim, n_classes, **args)
        model.bert.load_state_dict(encoder.state_dict())
        return model

    def forward_features(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """ "fused", "batch dim": BERT's pooled output.  batch: input_ids, attention_mask, image "batch cell dim"."""
        cells = self.adapt(batch["image"])
        mask = torch.ones(cells.shape[:2], dtype=torch.long, device=cells.device)
        output = self.bert(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            visual_embeds=cells,
            visual_attention_mask=mask,
            visual_token_type_ids=mask,
        )
        return {"fused": output.pooler_output}

    def forward_head(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """ "prediction": regression "batch", logits "batch classes", of two classes "batch 1"."""
        prediction = self.classifier(features["fused"])
        return {"prediction": prediction if self.n_classes else prediction.squeeze(-1)}

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        features = self.forward_features(batch)
        return self.forward_head(features) | features
