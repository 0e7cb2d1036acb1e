"""How well single modalities are known to do: what the audit holds a linear probe against.

Few unimodal scores of these corpora could be read at their source, so most bounds are of another kind, which
each names: `multimodal`, the best score known of any model that sees everything, which one modality and a linear probe
should not beat; `floor`, a constant prediction.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """A range of scores; `best` and `worst` in the metric's own direction, None where nothing is known."""

    corpus: str
    modalities: tuple[str, ...]  # () for any
    metric: str  # mae or corr
    best: float | None
    worst: float | None
    kind: str  # multimodal | floor
    source: str


KNOWN: tuple[Known, ...] = (
    Known("cmu-mosi", (), "mae", 0.686, None, "multimodal", "PSA-MF, arXiv 2512.01442, second-hand"),
    Known("cmu-mosi", (), "corr", 0.807, None, "multimodal", "PSA-MF, arXiv 2512.01442, second-hand"),
    Known("cmu-mosi", ("text",), "mae", None, 1.456, "floor", "the training median, on the standard split"),
    Known("cmu-mosei", (), "mae", 0.506, None, "multimodal", "SDUMC, README of its code"),
    Known("cmu-mosei", (), "corr", 0.7887, None, "multimodal", "Ando et al. 2022, raw score files of its code"),
)

# MAG-BERT's preparation of the same recordings.
SAME = {"mag-mosi": "cmu-mosi", "mag-mosei": "cmu-mosei"}


def known_scores(corpus: str, modality: str) -> list[Known]:
    """What is known for a modality of a corpus; the name may be written with underscores or capitals."""
    name = corpus.lower().replace("_", "-")
    name = SAME.get(name, name)
    return [known for known in KNOWN if known.corpus == name and (not known.modalities or modality in known.modalities)]
