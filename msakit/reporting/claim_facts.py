"""Claims as data: the ``claims:`` of a paper's facts, read strictly, and the arms that they speak of.

A claim in the YAML::

    - id: intermediate-beats-output
      sentence: An intermediate layer of a pre-trained encoder serves sentiment better than its output layer.
      source: abstract [P]
      metric: mae                     # or, by task: {regression: mae, classification: auroc}
      family: layers
      comparisons:
        text:
          a: {intermediate: {group: "Encoder, single layer", encoders: text}}
          b: {last: {group: "Encoder, single layer", encoders: text}}
        together: {a: [best-text-audio-vision, best-text-audio], b: [output-text-audio-vision, output-text-audio]}

Each side of a comparison is an arm's name, or one of a selection of arms (:class:`Selection`: facts of their records,
never their names):

    chosen         the one with the best mean over seeds on validation
    last           the one of the highest layer (or share of the training data, with ``by: share``)
    intermediate   of those between the lowest and the highest layer, the one chosen on validation

such as ``{last: {arms: [joint.share-5, joint], by: share}}``. Where a selection gives no arm, the comparison was not
run. Lists on both sides, of one length, are alternatives: the first of them whose arms were all run is taken.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from msakit.evaluation import metrics
from msakit.reporting.contract import Paper
from msakit.reporting.scores import scores
from msakit.runs.record import Record
from msakit.runs.store import Runs
from msakit.strict import Strict, parse

KINDS = ("generated", "real")


class Selection(Strict):
    """The recorded arms, references aside, of which all the given facts hold.

    An arm that is like another one (a variant, a reader's own) is taken only where `arms` names it.
    """

    group: str | None = None
    encoders: str | None = None  # the experiment's names of them: "text", "text+audio"
    arms: list[str] | None = None  # these alone
    by: Literal["layer", "share"] = "layer"  # what the order goes by; a layer is that of the only modality

    def takes(self, record: Record) -> bool:
        """Whether that run's arm belongs to the selection."""
        encoders = "+".join(feature.encoder for feature in record.features.values())
        if self.group not in (None, record.definition.group) or self.encoders not in (None, encoders):
            return False
        listed = record.definition.like is None if self.arms is None else record.arm in self.arms
        return listed and not record.reference

    def position(self, record: Record) -> int | None:
        """Where the arm stands in the order; None where it has no such number."""
        if self.by == "share":
            return record.definition.protocol.share
        layers = [feature.layer for feature in record.features.values()]
        return layers[0] if len(layers) == 1 and isinstance(layers[0], int) else None

    def __str__(self) -> str:
        given = self.model_dump(exclude_defaults=True, exclude={"by"})
        shown = {name: ", ".join(value) if isinstance(value, list) else value for name, value in given.items()}
        return ", ".join(f"{name} {value}" for name, value in shown.items())


class Role(Strict):
    """One arm of a selection; exactly one of the three is given."""

    chosen: Selection | None = None
    intermediate: Selection | None = None
    last: Selection | None = None

    @model_validator(mode="after")
    def _one(self) -> "Role":
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("an arm is its name, or one of chosen, intermediate, last with facts of the arms")
        return self

    @property
    def name(self) -> str:
        return next(iter(self.model_dump(exclude_none=True)))

    @property
    def selection(self) -> Selection:
        found: Selection = getattr(self, self.name)
        return found


def _read(value: Any) -> Any:
    """A side of a comparison from its YAML; read here, for a union would complain of every way that it is none."""
    if isinstance(value, list):
        return [_read(item) for item in value]
    return parse(Role, value, "an arm") if isinstance(value, Mapping) else value


Side = str | Role


class Lead(Strict):
    """Two arms, of which the first is to lead."""

    a: Annotated[Side, BeforeValidator(_read)]
    b: Annotated[Side, BeforeValidator(_read)]


class Pair(Strict):
    """One comparison of a claim: two arms, or alternatives of two arms, or two leads."""

    a: Annotated[Side | list[Side], BeforeValidator(_read)]
    b: Annotated[Side | list[Side], BeforeValidator(_read)]
    beyond: Lead | None = None  # the second pair, whose lead the first one's is to exceed
    value: str | None = None  # of a ratio: what is measured a run, see msakit.reporting.claims.measured

    @model_validator(mode="after")
    def _alternatives(self) -> "Pair":
        sizes = {len(side) for side in (self.a, self.b) if isinstance(side, list)}
        if len(sizes) > 1 or 0 in sizes:
            raise ValueError("lists of arms on both sides are alternatives and want one length")
        return self

    def alternatives(self) -> list[tuple[Side, ...]]:
        """The arms of each alternative: two, or four with `beyond`."""
        more = () if self.beyond is None else (self.beyond.a, self.beyond.b)
        count = max((len(side) for side in (self.a, self.b) if isinstance(side, list)), default=1)
        first, second = (side if isinstance(side, list) else [side] * count for side in (self.a, self.b))
        return [(*arms, *more) for arms in zip(first, second, strict=True)]


class Claim(Strict):
    """One claim of a paper."""

    paper: str
    id: str
    sentence: str  # in our words
    source: str  # where the paper or its authors say so, with its tag, or that it is our own question
    metric: str | dict[Literal["regression", "classification"], str]  # whose direction says what better is
    family: str  # claims that are corrected together
    comparisons: dict[str, Pair] = Field(min_length=1)
    test: Literal["difference", "spread", "ratio"] = "difference"
    margin: float = Field(0.0, ge=0)  # of "not worse", in the metric's unit
    seeds: int = Field(5, ge=2)  # seeds or folds an arm at least

    @model_validator(mode="after")
    def _consistent(self) -> "Claim":
        for name in self.metric.values() if isinstance(self.metric, dict) else [self.metric]:
            metrics.metric(name)
        for name, pair in self.comparisons.items():
            if (pair.value is None) == (self.test == "ratio") or (pair.beyond and self.test != "difference"):
                raise ValueError(f"{name}: 'value' goes with a ratio, and only with it; 'beyond' with a difference")
        return self

    def metric_on(self, task: str) -> str | None:
        """The metric for a task; None where the claim has none for it."""
        name = self.metric.get(task) if isinstance(self.metric, dict) else self.metric  # type: ignore[call-overload]
        return name if name is not None and metrics.metric(name).kind == task else None


def claims_of(paper: Paper) -> tuple[Claim, ...]:
    """The claims of a paper's facts, checked. Raises ValueError naming the file, the claim and the mend."""
    where = f"{paper.name}/paper.yaml, claim"
    return tuple(
        parse(Claim, {**item, "paper": paper.name}, f"{where} {number} ({item.get('id', 'without id')})")
        for number, item in enumerate(paper.facts.get("claims") or [], start=1)
    )


def resolve(runs: Runs, side: Side, metric: str) -> str | None:
    """The recorded arm that is meant, or None. runs: of one corpus."""
    if isinstance(side, str):
        return side if side in runs.arms else None
    selection = side.selection
    taken = {run.record.arm: run.record for run in runs if selection.takes(run.record)}
    names = list(taken)
    if side.name != "chosen":
        positions = {name: at for name, record in taken.items() if (at := selection.position(record)) is not None}
        names = sorted(positions, key=lambda name: positions[name])
        if len(names) < 2:
            return None
        if side.name == "last":
            return names[-1]
        names = names[1:-1]
    if not names:
        return None
    # In the order of their positions: of equal means the first is taken.
    means = scores(runs.select(arm=names), metric, split="valid").groupby("arm")["value"].mean().loc[names].dropna()
    if means.empty:
        return None
    return str(means.idxmax() if metrics.metric(metric).direction == "up" else means.idxmin())
