"""Which hidden state of an encoder: the arms of single layers, and the choice among them on validation."""

import pandas as pd

from msakit.papers.ando2022.arms import MODALITIES
from msakit.runs.arm import Arm, Input, Loss, Protocol
from msakit.runs.store import Runs

COLUMNS = ["encoder", "modality", "layer", "arm", "fold", "seed", "valid_loss"]


def single_layer_of(arm: Arm) -> tuple[str, int] | None:
    """Encoder and layer, if the arm is one layer of one modality in the paper's model, as the experiment trains it."""
    if arm.model != "gated" or len(arm.inputs) != 1 or arm.args or arm.settings:
        return None
    (given,) = arm.inputs.values()
    plain = given == Input(encoder=given.encoder, layer=given.layer)
    if not plain or arm.loss != Loss() or arm.protocol != Protocol() or not isinstance(given.layer, int):
        return None
    return given.encoder, given.layer


def takes_best(arm: Arm) -> bool:
    """Whether a layer is to be chosen for one of its inputs."""
    return any(given.layer == "best" for given in arm.inputs.values())


def layer_runs(runs: Runs) -> pd.DataFrame:
    """The runs of single layers, modality by modality, one row a layer, fold and seed: COLUMNS.

    fold: -1 on the corpus's own split.
    valid_loss: of the epoch that was kept, mean absolute error for numbers, cross entropy for classes.
    """
    rows = []
    for run in runs:
        record = run.record
        if (single := single_layer_of(record.definition)) is not None and record.selection is not None:
            encoder, layer = single
            fold = -1 if record.fold is None else record.fold.index
            (modality,) = record.definition.inputs
            rows.append((encoder, modality, layer, record.arm, fold, record.seed, record.selection.value))
    frame = pd.DataFrame(rows, columns=COLUMNS)
    # A reader's own arm may be a single layer once more.
    frame = frame.drop_duplicates(["encoder", "layer", "fold", "seed"])
    order = [modality for modality in MODALITIES if modality in set(frame["modality"])]
    frame = frame.sort_values(["encoder", "layer", "fold", "seed"])
    frame = frame.sort_values("modality", key=lambda column: column.map(order.index), kind="stable")
    return frame.reset_index(drop=True)


def best_layers(runs: Runs) -> dict[int, dict[str, int]]:
    """By fold (-1: the corpus's own split) and encoder, the layer with the lowest mean validation loss over seeds.

    The earlier one of equals. The choice for a fold looks at that fold's validation segments alone: its test segments
    validate or train in other folds.
    """
    best: dict[int, dict[str, int]] = {}
    for (fold, encoder), part in layer_runs(runs).groupby(["fold", "encoder"], sort=False):
        means = part.groupby("layer")["valid_loss"].mean()
        best.setdefault(int(str(fold)), {})[str(encoder)] = int(str(means.idxmin()))
    return best


def last_layers(runs: Runs) -> dict[str, int]:
    """By encoder, the highest layer that was run: its output layer."""
    return {str(name): int(part["layer"].max()) for name, part in layer_runs(runs).groupby("encoder", sort=False)}
