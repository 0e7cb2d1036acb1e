"""Profiles: which notebooks to run, with which parameters; ``workflow/profiles/*.yaml``, or your own copy of one.

    profile: mini            # names build/<profile> and results/<profile>
    offline: true            # nothing may be fetched
    matmul: default          # or onednn, see msakit.process.configure
    jobs: {kim2022: 2}       # processes among which a notebook's folds or seeds are dealt out; 1 where not given
    notebooks:
      kim2022: {corpora: [mini-mosi], seeds: [0, 1, 2], …}

A text ``{cmu_mosi}`` stands for the environment variable ``MSAKIT_CMU_MOSI``, and so with any other name.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from msakit.strict import Strict, from_yaml, parse
from msakit.suggestions import did_you_mean

FOLDER = Path(__file__).parents[1] / "workflow" / "profiles"
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class Profile(Strict):
    """A profile's content; `notebooks` holds the parameters of each, by its name."""

    profile: str
    offline: bool = False
    matmul: Literal["default", "onednn"] = "default"
    jobs: dict[str, int] = {}
    notebooks: dict[str, dict[str, Any]]

    def parameters(self, notebook: str) -> dict[str, Any]:
        """The parameters of a notebook.

        Raises:
            ValueError: the profile has nothing for it; the nearest that it has is named.
        """
        if notebook not in self.notebooks:
            known = ", ".join(self.notebooks)
            near = did_you_mean(notebook, self.notebooks)
            raise ValueError(f"profile {self.profile!r} has no notebook {notebook!r}: it has {known}.{near}")
        return self.notebooks[notebook]

    def inputs(self, notebook: str) -> list[str]:
        """The corpora of a notebook, and the paths of its encoders and tokenizers, as its parameters name them."""
        return list(dict.fromkeys(_inputs(self.parameters(notebook))))

    def needs(self) -> list[str]:
        """Corpora and checkpoints of all notebooks that are neither generated, built nor installed here."""
        from msakit.data import CORPORA

        names = dict.fromkeys(name for notebook in self.notebooks for name in self.inputs(notebook))
        return [name for name in names if name not in CORPORA and not name.startswith(("build/", "package:"))]


def load_profile(name: str | Path) -> Profile:
    """A profile by its name in ``workflow/profiles``, or by the path of a file.

    Raises:
        ValueError: there is none, it cannot be read, holds what a profile does not have, or wants a value that is not
            given; the message names the file and the mend.
    """
    path = Path(name) if Path(name).suffix in (".yaml", ".yml") else FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in FOLDER.glob("*.yaml"))
        choices = f"choose from {', '.join(known)}" if known else f"{FOLDER}, of a checkout, is not there"
        near = did_you_mean(str(name), known)
        raise ValueError(f"there is no profile {str(name)!r}: {choices}, or give a path.{near}")
    content = from_yaml(path.read_text(encoding="utf-8"), str(path))
    return parse(Profile, _filled_in(content, path), str(path))


def _filled_in(value: Any, path: Path) -> Any:
    """The content with its placeholders replaced by what the environment has for them."""
    if isinstance(value, Mapping):
        return {key: _filled_in(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled_in(item, path) for item in value]
    if isinstance(value, str) and (found := _PLACEHOLDER.fullmatch(value)):
        variable = f"MSAKIT_{found[1].upper()}"
        if not os.environ.get(variable):
            raise ValueError(f"{path} wants {value}: set {variable}, or pass --config {found[1]}=… to snakemake")
        return os.environ[variable]
    return value


def _inputs(parameters: Mapping[str, Any]) -> Iterator[str]:
    from msakit.encoders import ENCODERS

    yield from parameters.get("corpora") or ()
    for spec in (parameters.get("encoders") or {}).values():
        if isinstance(spec, str):
            kind, _, path = spec.partition(":")
            if kind not in ENCODERS:
                yield spec
            elif path:
                yield path
        elif spec:
            yield from (spec[key] for key in ("path", "tokenizer", "grid") if spec.get(key))
    for other in (parameters.get("by_corpus") or {}).values():
        yield from _inputs(other)
