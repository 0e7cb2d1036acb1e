"""The published corpora and checkpoints that the papers use: what each is, whose terms it is under, where it goes.

None of them is part of the kit. Corpora are imported once into a folder (`msakit import`), by custom `data/<name>`;
checkpoints are read by their id from the Hugging Face cache, or from a folder that the profile names. The terms are as
their owners' pages and model cards state them, in short, and are no legal advice: read the page before fetching.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


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

    def folders(self) -> list[Path]:
        """Where it is looked for, in this order."""
        if self.kind == "corpus":
            return [Path("data") / self.name, Path("corpora") / self.name]
        return [_hub_folder(self.name), Path("checkpoints") / self.name.rpartition("/")[2]]

    def found(self) -> Path | None:
        """The first folder that holds it."""
        return next((folder for folder in self.folders() if _holds(folder, self.kind)), None)


def _corpus(name: str, what: str, terms: str, fetch: str, put: str) -> Item:
    return Item(name, "corpus", what, terms, fetch, f"msakit import {put}")


def _checkpoint(name: str, what: str, terms: str) -> Item:
    folder = f"checkpoints/{name.rpartition('/')[2]}"
    fetch = f"https://huggingface.co/{name}"
    put = f"hf download {name} (or: hf download {name} --local-dir {folder}, and that path in the profile)"
    return Item(name, "checkpoint", what, terms, fetch, put)


_CMU = "research use under the terms of the CMU Multimodal SDK; the clips are YouTube users' own"
_SDK = "https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK"
_MAG = "https://github.com/WasifurRahman/BERT_multimodal_transformer (its data set script)"
_MVSA = "http://www.mcrlab.net/research/mvsa-sentiment-analysis-on-multi-view-social-data/"
_MVSA_TERMS = "offered for research by its authors' page; the posts are Twitter users' own"

CATALOGUE: tuple[Item, ...] = (
    _corpus("cmu-mosi", "CMU-MOSI: 2,199 opinion segments of 93 YouTube monologues, labels in [-3, 3]", _CMU,
            f"the Raw folder (Video, Audio, Transcript), the label .csd and the standard folds: {_SDK}",
            "mosi-raw Raw data/cmu-mosi -o labels=CMU_MOSI_Opinion_Labels.csd -o splits=folds.json"),
    _corpus("cmu-mosei", "CMU-MOSEI: 22,856 segments of 3,227 YouTube videos, labels in [-3, 3]", _CMU,
            f"the Raw folder, CMU_MOSEI_Labels.csd and the standard folds: {_SDK}",
            "mosei-raw Raw data/cmu-mosei -o labels=CMU_MOSEI_Labels.csd -o splits=folds.json"),
    _corpus("cmu-mosi-sdk", "CMU-MOSI's conventional features: GloVe, COVAREP, FACET", _CMU,
            f"the .csd files of labels, timestamped words, word vectors, COVAREP and FACET: {_SDK}",
            "csd SDK data/cmu-mosi-sdk -o splits=folds.json -o max_frames=150"),
    _corpus("cmu-mosei-sdk", "CMU-MOSEI's conventional features: GloVe, COVAREP, FACET", _CMU,
            f"the .csd files of labels, timestamped words, word vectors, COVAREP and FACET: {_SDK}",
            "csd SDK data/cmu-mosei-sdk -o splits=folds.json -o max_frames=150"),
    _corpus("mag-mosi", "CMU-MOSI as MAG-BERT prepared it (mosi.pkl), visual and acoustic vectors by word", _CMU,
            f"mosi.pkl: {_MAG}", "mag mosi.pkl data/mag-mosi"),
    _corpus("mag-mosei", "CMU-MOSEI as MAG-BERT prepared it (mosei.pkl)", _CMU,
            f"mosei.pkl: {_MAG}", "mag mosei.pkl data/mag-mosei"),
    _corpus("meld", "MELD: 13,708 utterances of the series Friends, three sentiments and seven emotions",
            "GPL-3.0 for the data set; the clips remain the broadcaster's",
            "MELD.Raw.tar.gz: https://huggingface.co/datasets/declare-lab/MELD",
            "meld MELD.Raw data/meld"),
    _corpus("ch-sims", "CH-SIMS: 2,281 Chinese segments with a label for each modality, in [-1, 1]",
            "research use, by its authors", "label.csv and Raw/: https://github.com/thuiar/MMSA",
            "ch-sims CH-SIMS data/ch-sims"),
    _corpus("mvsa-single", "MVSA-Single: Twitter posts with a picture, one annotator", _MVSA_TERMS,
            f"data/ and labelResultAll.txt: {_MVSA}", "mvsa-single MVSA_Single data/mvsa-single -o rule=agree-only"),
    _corpus("mvsa-multiple", "MVSA-Multiple: Twitter posts with a picture, three annotators", _MVSA_TERMS,
            f"data/ and labelResultAll.txt: {_MVSA}",
            "mvsa-multiple MVSA data/mvsa-multiple -o rule=majority-then-neutral-yields"),
    _corpus("mvsa-1.2k", "MVSA-1.2k: 1,211 posts a class drawn from MVSA-Multiple, as Toledo & Marcacini describe it",
            _MVSA_TERMS, f"data/ and labelResultAll.txt of MVSA-Multiple: {_MVSA}",
            "mvsa-multiple MVSA data/mvsa-1.2k -o rule=votes-majority-balanced"),
    _corpus("hateful-memes", "Hateful Memes: memes whose text and picture are harmless alone, two classes",
            "Meta's data set licence, research only, to be accepted before fetching",
            "img/ and the .jsonl files: https://ai.meta.com/tools/hatefulmemes",
            "hateful-memes hateful_memes data/hateful-memes -o merged=true"),
    _checkpoint("openai/clip-vit-large-patch14", "CLIP ViT-L/14, the visual encoder of Ando et al.",
                "MIT, by OpenAI's repository of CLIP"),
    _checkpoint("openai/clip-vit-base-patch32", "CLIP ViT-B/32, a baseline beside Toledo & Marcacini",
                "MIT, by OpenAI's repository of CLIP"),
    _checkpoint("microsoft/wavlm-large", "WavLM-Large, the acoustic encoder of Ando et al.", "CC BY-SA 3.0"),
    _checkpoint("bert-large-uncased", "BERT-large, the text encoder of Ando et al.", "Apache-2.0"),
    _checkpoint("bert-base-uncased", "BERT-base, in MAG-BERT and in Kim & Kim; VisualBERT's tokenizer", "Apache-2.0"),
    _checkpoint("distilbert-base-uncased", "DistilBERT, the text encoder of Toledo & Marcacini", "Apache-2.0"),
    _checkpoint("microsoft/resnet-50", "ResNet-50, the image encoder of Toledo & Marcacini", "Apache-2.0"),
    _checkpoint("uclanlp/visualbert-vqa-coco-pre", "VisualBERT, a baseline beside Toledo & Marcacini", "Apache-2.0"),
)  # fmt: skip
BY_NAME = {item.name: item for item in CATALOGUE}


def states() -> list[dict[str, str]]:
    """A row an item: name, kind, state ("present" or "absent"), where, what, terms, fetch, put."""
    rows = []
    for item in CATALOGUE:
        folder = item.found()
        rows.append(
            {
                "name": item.name,
                "kind": item.kind,
                "state": "absent" if folder is None else "present",
                "where": " or ".join(map(str, item.folders())) if folder is None else str(folder),
                "what": item.what,
                "terms": item.terms,
                "fetch": item.fetch,
                "put": item.put,
            }
        )
    return rows


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
    if name in BY_NAME and BY_NAME[name].kind == "checkpoint":
        folders.append(_hub_folder(name))  # where the id alone is looked up
    return any(_holds(folder, kind) for folder in folders for kind in ("corpus", "checkpoint"))


def _description(name: str) -> str:
    """What is absent, under which terms it is offered, what to fetch and where to put it."""
    item = BY_NAME.get(name) or next((i for i in CATALOGUE if i.name.rpartition("/")[2] == Path(name).name), None)
    if item is None:
        near = difflib.get_close_matches(name, BY_NAME, n=1)
        guess = f", did you mean {near[0]!r}?" if near else ""
        return f"{name!r} (no such folder, and the catalogue does not know it{guess})"
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
