"""The published corpora and checkpoints that the papers use (catalogue.yaml), and which of them are here.

None of them is part of the kit. Corpora are imported once into a folder (`msakit import`), by custom `data/<name>`;
checkpoints are read by their id from the Hugging Face cache, or from a folder that the profile names. The terms are no
legal advice: read the page before fetching.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from msakit.suggestions import did_you_mean


class AbsentError(ValueError):
    """Published corpora or checkpoints that a run needs are not here; the message names all of them and the mend."""


@dataclass(frozen=True)
class Item:
    """One corpus or checkpoint. `name` is a corpus' folder name, or a checkpoint's id on the model hub."""

    name: str
    kind: str  # corpus | checkpoint
    what: str
    terms: str
    fetch: str
    put: str  # the command that puts it where it is looked for
    segments: dict[str, int] = field(default_factory=dict)  # by split, as this and the next are known
    videos: dict[str, int] = field(default_factory=dict)
    scores: list[dict[str, Any]] = field(default_factory=list)  # metric, best or worst, source; perhaps modality

    def folders(self) -> list[Path]:
        """Where it is looked for, in this order."""
        if self.kind == "corpus":
            return [Path("data") / self.name, Path("corpora") / self.name]
        return [_hub_folder(self.name), Path("checkpoints") / self.name.rpartition("/")[2]]

    def found(self) -> Path | None:
        """The first folder that holds it."""
        return next((folder for folder in self.folders() if _holds(folder, self.kind)), None)


def _catalogue() -> Iterable[Item]:
    content = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
    for name, fields in content["corpora"].items():
        yield Item(name, "corpus", put=f"msakit import {fields.pop('import')}", **fields)
    for name, fields in content["checkpoints"].items():
        local = f"hf download {name} --local-dir checkpoints/{name.rpartition('/')[2]}"
        put = f"hf download {name} (or: {local}, and that path in the profile)"
        yield Item(name, "checkpoint", fetch=f"https://huggingface.co/{name}", put=put, **fields)


CATALOGUE = {item.name: item for item in _catalogue()}


def require(names: Iterable[str | Path]) -> None:
    """Raise AbsentError for all that is not here, in one message, a line each.

    A name is a folder or a checkpoint's id, as a profile gives it; a folder called like an item is described as it.
    """
    absent = [_description(name) for name in dict.fromkeys(map(str, names)) if not _present(name)]
    if absent:
        count = "1 corpus or checkpoint is" if len(absent) == 1 else f"{len(absent)} corpora and checkpoints are"
        raise AbsentError(f"{count} not here (`msakit data list` shows all):\n- " + "\n- ".join(absent))


def _present(name: str) -> bool:
    folders = [Path(name)]
    if name in CATALOGUE and CATALOGUE[name].kind == "checkpoint":
        folders.append(_hub_folder(name))  # where the id alone is looked up
    return any(_holds(folder, kind) for folder in folders for kind in ("corpus", "checkpoint"))


def _description(name: str) -> str:
    """What is absent, under which terms it is offered, what to fetch and where to put it."""
    same = (item for item in CATALOGUE.values() if item.name.rpartition("/")[2] == Path(name).name)
    item = CATALOGUE.get(name) or next(same, None)
    if item is None:
        return f"{name!r}: no such folder, and the catalogue does not know it.{did_you_mean(name, CATALOGUE)}"
    put = item.put
    if item.kind == "corpus" and name != item.name:
        put = put.replace(f" data/{item.name}", f" {name}")
    return f"{name}: {item.what}; terms: {item.terms}; fetch {item.fetch}; put it there by: {put}"


def _holds(folder: Path, kind: str) -> bool:
    if kind == "corpus":
        return (folder / "segments.csv").is_file()
    if folder.name.startswith("models--"):
        return any(folder.glob("snapshots/*/config.json"))
    return (folder / "config.json").is_file()


def _hub_folder(name: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / ("models--" + name.replace("/", "--"))
