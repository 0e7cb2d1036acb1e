"""Public corpus formats made into interchange folders, one format a file, through one door: `import_corpus`.

Features aligned by word (MAG-BERT pickles; `.csd` with `align="words"`) lie in the folder so: segments.csv has the
columns `words`, a JSON list of the segment's words, and `n_words`; row i of a segment in features.npz' `audio` and
`vision` [segment, word, dim] is the vector of word i, and zeros follow the last word. A vector of zeros before that is
a word for which nothing was measured (no face, no frame), so nothing may be trimmed at the front.
"""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from msakit.suggestions import did_you_mean

# name -> "module:function", called as function(source, **options) -> Draft; imported only when used.
IMPORTERS = {
    "mmsa": "msakit.data.importers.mmsa:read",
    "mult": "msakit.data.importers.mult:read",
    "mag": "msakit.data.importers.mag:read",
    "csd": "msakit.data.importers.csd:read",
    "ando": "msakit.data.importers.ando:read",
    "mosi-raw": "msakit.data.importers.mosi_raw:read",
    "mosei-raw": "msakit.data.importers.mosei_raw:read",
    "meld": "msakit.data.importers.meld:read",
    "ch-sims": "msakit.data.importers.ch_sims:read",
    "mvsa-single": "msakit.data.importers.mvsa:read_single",
    "mvsa-multiple": "msakit.data.importers.mvsa:read_multiple",
    "hateful-memes": "msakit.data.importers.hateful_memes:read",
}


def import_corpus(
    name: str,
    source: str | Path,
    out: str | Path,
    /,
    *,
    copy: bool = False,
    link: bool = False,
    missing_media: Literal["drop", "keep"] = "drop",
    overwrite: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Make `out` an interchange folder from a public corpus, and return its manifest (also in manifest.json).

    Args:
        name: a format of IMPORTERS.
        source: the published file or folder.
        out: made whole or not at all; must not exist yet, unless `overwrite`.
        copy, link: copy media files into `out`, or lay symbolic links there; otherwise they stay where they are and
            segments.csv has the paths to them from `out`.
        missing_media: leave out rows whose media file is absent ("drop"), or keep them with an empty cell ("keep").
        options: of the format; see the function that IMPORTERS names.

    Raises:
        ValueError: an unknown format or option; the message lists the choices.
        ImporterError: the source cannot be used; the message names the file and the mend.
    """
    if name not in IMPORTERS:
        raise ValueError(f"no importer {name!r}: choose one of {', '.join(IMPORTERS)}.{did_you_mean(name, IMPORTERS)}")
    if copy and link:
        raise ValueError("copy and link exclude each other: choose one")
    if missing_media not in ("drop", "keep"):
        raise ValueError(f"missing_media is {missing_media!r}: choose 'drop' or 'keep'")
    module, function = IMPORTERS[name].split(":")
    read = getattr(import_module(module), function)
    accepted = [p for p in inspect.signature(read).parameters.values() if p.kind is p.KEYWORD_ONLY]
    known = [p.name for p in accepted]
    for option in options:
        if option not in known:
            choices = ", ".join(known) or "none"
            near = did_you_mean(option, known)
            raise ValueError(f"importer {name!r} has no option {option!r}: it has {choices}.{near}")
    needed = [p.name for p in accepted if p.default is p.empty and p.name not in options]
    if needed:
        raise ValueError(f"importer {name!r} needs {' and '.join(needed)}: see the text of {module}")

    from msakit.data.importers.writer import check_paths, write

    source, out = check_paths(source, out, overwrite)
    media: Literal["refer", "copy", "link"] = "copy" if copy else "link" if link else "refer"
    return write(read(source, **options), name, source, out, media, missing_media == "keep", overwrite)
