"""How Toledo & Marcacini's code trains and scores, switch by switch, and how a sound protocol does.

Facts are from their public code (commit 8f55331).  `as_published` sets every switch as there, `corrected` none; each
`only-<switch>` arm sets one, so that the table shows what each is worth.

* folds: `KFold(10, shuffle=True, random_state=42)` over all segments; corrected: stratified, and posts with one image
  in one fold.
* stop: early stopping watches the test fold, and nine folds train; corrected: the fold after the test fold watches,
  eight folds train, and the test fold is looked at once.
* drop-last: incomplete last batches are dropped, of the shuffled test fold too, so that its last few segments, chosen
  by chance, are never scored; corrected: every segment is trained on and scored.
* attention: the fusion layer sees a sequence of length one; corrected: the two modalities are its two tokens.
* threshold: with two classes a raw logit is compared with 0.5, which is a probability of 0.62; corrected: 0.5 on
  probabilities.  Predictions are stored as probabilities either way: the switch says by which metrics they are scored
  (`accuracy_logit05`, ...), and changes nothing with three classes or more.

Not a switch: their training is not seeded, ours is; which epoch they report is not known, ours is the one stopped for.
"""

from dataclasses import dataclass, fields, replace
from typing import Literal

SUFFIX = ".as-published"
ONLY = ".only-"
SHARE = ".share-"


@dataclass(frozen=True)
class Protocol:
    """The five switches; the defaults are the corrections."""

    folds: Literal["stratified", "shuffled"] = "stratified"
    stop: Literal["valid", "test"] = "valid"
    drop_last: bool = False
    attention: Literal["modalities", "single"] = "modalities"
    threshold: Literal["probabilities", "logits"] = "probabilities"

    @classmethod
    def as_published(cls) -> "Protocol":
        return cls("shuffled", "test", True, "single", "logits")

    def only(self, switch: str) -> "Protocol":
        """This protocol with one switch, named as in `SWITCHES`, as published."""
        name = SWITCHES[switch]
        return replace(self, **{name: getattr(Protocol.as_published(), name)})


# name in an arm -> field
SWITCHES = {field.name.replace("_", "-"): field.name for field in fields(Protocol)}
CORRECTED = Protocol()


@dataclass(frozen=True)
class Arm:
    """An arm's name taken apart: what is trained, under which protocol, on which share of the training split."""

    name: str
    base: str
    protocol: Protocol = CORRECTED
    label: str = "corrected"  # the protocol's name in records
    percent: int | None = None  # None: all, and in folds

    def of(self, base: str) -> str:
        """The name of another arm under the same protocol and share."""
        return base + self.name.removeprefix(self.base)


def parse(name: str, known: list[str]) -> Arm:
    """`joint`, `joint.as-published`, `joint.only-drop-last` or `joint.share-10`.

    Raises ValueError, with the choices, for a name of no arm.
    """
    base, dot, _ = name.partition(".")
    rest = name.removeprefix(base)
    if base not in known:
        raise ValueError(f"no arm {name!r}: choose from {', '.join(known)}")
    if not dot:
        return Arm(name, base)
    if rest == SUFFIX:
        return Arm(name, base, Protocol.as_published(), "as_published")
    if rest.startswith(ONLY) and rest.removeprefix(ONLY) in SWITCHES:
        switch = rest.removeprefix(ONLY)
        return Arm(name, base, CORRECTED.only(switch), f"as_published_{SWITCHES[switch]}")
    if rest.startswith(SHARE) and rest.removeprefix(SHARE).isdecimal() and 1 <= int(rest.removeprefix(SHARE)) <= 100:
        return Arm(name, base, percent=int(rest.removeprefix(SHARE)))
    choices = ", ".join([SUFFIX, *(ONLY + switch for switch in SWITCHES), f"{SHARE}1 to {SHARE}100"])
    raise ValueError(f"no arm {name!r}: {base} may be followed by {choices}")
