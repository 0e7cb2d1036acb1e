"""Public corpus formats made into interchange folders, one format a file, through one door: `import_corpus`.

Features aligned by word (MAG-BERT pickles; `.csd` with `align="words"`) lie in the folder so: segments.csv has the
columns `words`, a JSON list of the segment's words, and `n_words`; row i of a segment in features.npz' `audio` and
`vision` [segment, word, dim] is the vector of word i, and zeros follow the last word. A vector of zeros before that is
a word for which nothing was measured (no face, no frame), so nothing may be trimmed at the front.
"""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

from msakit.suggestions import did_you_mean

# name -> "module:function", called as function(source, **options) -> Draft; imported only when used.
IMPORTERS = {
    "mmsa": "msakit.data.importers.mmsa:read",
    "mult": "msakit.data.importers.mult:read",
    "mag": "msakit.data.importers.mag:read",
    "csd": "msakit.data.importers.csd:read",
    "ando": "msakit.data.importers.ando:read",
    "mosi-raw": "msakit.data.importers.cmu_raw:read_mosi",
    "mosei-raw": "msakit.data.importers.cmu_raw:read_mosei",
    "meld": "msakit.data.importers.meld:read",
    "ch-sims": "msakit.data.importers.ch_sims:read",
    "mvsa-single": "msakit.data.importers.mvsa:read_single",
    "mvsa-multiple": "msakit.data.importers.mvsa:read_multiple",
    "hateful-memes": "msakit.data.importers.hateful_memes:read",
}


def import_corpus(name: str, source: str | Path, out: str | Path, /, **options: Any) -> dict[str, Any]:
    """Make `out` an interchange folder from a public corpus, and return its manifest (also in manifest.json).

    Args:
        name: a format of IMPORTERS.
        source: the published file or folder. Media files stay where they are; segments.csv has the paths from `out`.
        out: made whole or not at all; must not exist yet.
        options: of the format; see the function that IMPORTERS names.

    Raises:
        ValueError: an unknown format or option; the message lists the choices.
        CorpusError: the source cannot be used; the message names the file and the mend.
    """
    if name not in IMPORTERS:
        raise ValueError(f"no importer {name!r}: choose one of {', '.join(IMPORTERS)}.{did_you_mean(name, IMPORTERS)}")
    module, function = IMPORTERS[name].split(":")
    read = getattr(import_module(module), function)
    accepted = [p for p in inspect.signature(read).parameters.values() if p.kind is p.KEYWORD_ONLY]
    known = [p.name for p in accepted]
    for option in options:
        if option not in known:
            near = did_you_mean(option, known)
            raise ValueError(f"importer {name!r} has no option {option!r}: it has {', '.join(known)}.{near}")
    needed = [p.name for p in accepted if p.default is p.empty and p.name not in options]
    if needed:
        raise ValueError(f"importer {name!r} needs {' and '.join(needed)}: see the text of {module}")

    from msakit.data.importers.writer import check_paths, write

    source, out = check_paths(source, out)
    return write(read(source, **options), name, source, out)
