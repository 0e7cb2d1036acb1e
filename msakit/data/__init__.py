"""What a corpus is, the generated mini corpora, and the one door to all of them: `open_corpus`."""

import logging
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from msakit.files import new_folder
from msakit.suggestions import did_you_mean

if TYPE_CHECKING:
    from msakit.data.corpus import Corpus

logger = logging.getLogger(__name__)

# name -> "module:function", called as function(folder, seed=0, sizes=None); imported only when a corpus is made.
CORPORA = {
    "mini-mosi": "msakit.data.synthetic.mini_mosi:generate",
    "mini-posts": "msakit.data.synthetic.mini_posts:generate",
    "mini-memes": "msakit.data.synthetic.mini_memes:generate",
    "mini-pool-mosi": "msakit.data.synthetic.mini_pool_mosi:generate",
    "mini-pool-posts": "msakit.data.synthetic.mini_pool_posts:generate",
}


def open_corpus(name_or_folder: str | Path, cache: str | Path) -> "Corpus":
    """A corpus by name (generated under `cache` on first use) or by folder.

    Raises ValueError for a name that is neither, listing the choices, and CorpusError for a folder with problems.
    """
    from msakit.data.corpus import load_corpus

    name = str(name_or_folder)
    if name in CORPORA:
        return load_corpus(_generated(name, Path(cache)))
    if Path(name).is_dir():
        return load_corpus(name)
    raise ValueError(
        f"no corpus {name!r}: choose one of {', '.join(CORPORA)}, or give a folder that exists."
        f"{did_you_mean(name, CORPORA)}"
    )


def _generated(name: str, cache: Path) -> Path:
    """The folder of a generated corpus, whole: half of one is never taken for one."""
    folder = cache / name
    if not folder.exists():
        module, function = CORPORA[name].split(":")
        generate = getattr(import_module(module), function)
        logger.info("generating %s in %s", name, folder)
        with new_folder(folder) as partial:
            generate(partial)
    return folder
