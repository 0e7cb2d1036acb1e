"""Audit of a corpus, before any model is trained on it.

Overlap of splits (one video in two, texts that are nearly the same), range and balance of the labels, features that
are not numbers, constant or all zero, lengths, and a label-leak check: a linear probe on each modality, trained on
train, its penalty chosen on valid, scored once on test. A probe that does better than the best known model of the
whole corpus, or than the generator's own posterior, has seen the label.

Texts are nearly the same when, capitals and punctuation aside, the cosine of their TF-IDF vectors of character 3- to
5-grams is `near` or more.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from tqdm import tqdm

from msakit.data.catalogue import CATALOGUE
from msakit.data.corpus import Corpus
from msakit.training.scaling import Scaling

WORDS = 4  # shorter texts ("I don't know") recur in any corpus: counted, not warned of
LEAK = 0.95  # correlation or accuracy of a linear probe that no honest feature of sentiment has been known to reach
SPLITS = ("train", "valid", "test")
ALPHAS = (0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)


@dataclass
class Audit:
    """What was found: `warnings` want a look, `notes` are as they may be."""

    corpus: str
    labels: list[dict[str, Any]] = field(default_factory=list)  # a row a split
    lengths: list[dict[str, Any]] = field(default_factory=list)  # a row a modality and split
    overlap: dict[str, int] = field(default_factory=dict)  # counts of what two splits share
    features: list[dict[str, Any]] = field(default_factory=list)  # a row an array
    probes: list[dict[str, Any]] = field(default_factory=list)  # a row a modality
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """For a terminal."""
        parts = [f"# {self.corpus}"]
        for title, rows in (
            ("Labels", self.labels),
            ("Lengths", self.lengths),
            ("Stored features", self.features),
            ("Linear probes, scored on test", [{k: v for k, v in row.items() if k != "known"} for row in self.probes]),
        ):
            if rows:
                parts += [f"\n## {title}", pd.DataFrame(rows).fillna("–").to_markdown(index=False, floatfmt=".3f")]
        parts += [f"\nknown of {row['modality']}: {row['known']}" for row in self.probes]
        shared = ", ".join(f"{name}: {value}" for name, value in self.overlap.items())
        parts += ["\n## Overlap of splits", shared or "one split only"]
        parts += [f"\nNOTE: {note}" for note in self.notes]
        parts += [f"\n!!! WARNING: {warning}" for warning in self.warnings] or ["\nNo warning."]
        return "\n".join(parts)


def audit(corpus: Corpus, *, near: float = 0.9, media: bool = False) -> Audit:
    """All checks of a corpus; nothing of it is changed.

    Args:
        near: cosine from which two texts count as the same, above 0 and up to 1.
        media: probe sound and video by the conventional sets too, which takes about a tenth of a second a segment.

    Raises:
        ValueError: `near` is out of range, or the corpus has no labelled rows.
        CorpusError: features.npz does not fit segments.csv.
    """
    if not 0 < near <= 1:
        raise ValueError(f"near is {near:g}: give a cosine above 0 and up to 1")
    found = Audit(corpus.name)
    table = corpus.table()
    labelled = table["split"].isin(SPLITS)
    table = table[labelled].reset_index(drop=True)
    if table.empty:
        raise ValueError(f"{corpus.folder} has no labelled rows (split train, valid or test) to audit")
    _labels(table, corpus, found)
    _lengths(table, found)
    _videos(table, found)
    _near_duplicates(table, near, found)
    inputs: dict[str, Any] = {"text": None}
    for name, values in (corpus.features() or {}).items():
        values = values[labelled.to_numpy()]
        _feature_health(name, values, found)
        inputs[name] = _pooled(values)
    if media:
        inputs |= _conventional(corpus, table)
    for column in ("audio", "video"):
        if column in table and table[column].notna().any() and not media and not any(column in i for i in inputs):
            found.notes.append(f"{column} files were not probed: --media does so")
    _probe_all(corpus, table, inputs, found)
    return found


def _labels(table: pd.DataFrame, corpus: Corpus, found: Audit) -> None:
    for split in SPLITS:
        part = table[table["split"] == split]
        if part.empty:
            found.warnings.append(f"no row is marked {split}")
            continue
        row: dict[str, Any] = {"split": split, "segments": len(part), "videos": part["video_id"].nunique()}
        if corpus.task.kind == "regression":
            values = part["label"].astype(float)
            row |= {"mean": values.mean(), "s.d.": values.std(), "lowest": values.min(), "highest": values.max()}
            row |= {"negative": float((values < 0).mean()), "zero": float((values == 0).mean())}
            row["positive"] = float((values > 0).mean())
            if values.nunique() == 1:
                found.warnings.append(f"all labels of {split} are {values.iloc[0]:g}")
        else:
            shares = part["label"].astype(int).value_counts(normalize=True)
            row |= {name: float(shares.get(index, 0.0)) for index, name in enumerate(corpus.task.classes)}
            absent = [name for index, name in enumerate(corpus.task.classes) if index not in shares.index]
            if absent:
                found.warnings.append(f"{split} has no row of class {', '.join(absent)}")
        found.labels.append(row)
    if corpus.task.kind == "regression":
        low, high = table["label"].min(), table["label"].max()
        if (high - low) < 0.5 * (corpus.task.high - corpus.task.low):
            found.warnings.append(
                f"labels lie in [{low:g}, {high:g}], less than half of [{corpus.task.low:g}, {corpus.task.high:g}]: "
                "state their range as task low and high in corpus.json"
            )


def _lengths(table: pd.DataFrame, found: Audit) -> None:
    """Words of the texts; seconds of the sound, from the files' headers."""
    measures = {"words": table["text"].str.count(r"\S+")}
    if "audio" in table and table["audio"].notna().any():
        measures["seconds of audio"] = table["audio"].map(_seconds)
    for name, values in measures.items():
        for split in SPLITS:
            part = values[table["split"] == split].dropna()
            if len(part):
                row = {"what": name, "split": split, "shortest": part.min(), "median": part.median()}
                found.lengths.append({**row, "longest": part.max()})


def _seconds(path: str | None) -> float:
    import soundfile

    try:
        return float(soundfile.info(path).duration) if path is not None else np.nan
    except (soundfile.SoundFileError, OSError):
        return np.nan


def _videos(table: pd.DataFrame, found: Audit) -> None:
    splits = table.groupby("video_id")["split"].nunique()
    shared = sorted(map(str, splits.index[splits > 1]))
    found.overlap["videos in two splits"] = len(shared)
    if shared:
        found.warnings.append(
            f"{len(shared)} of {len(splits)} videos have segments in more than one split (first: {shared[0]}): test "
            "scores then measure the memory of voices and faces"
        )


def _near_duplicates(table: pd.DataFrame, near: float, found: Audit) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = table["text"].map(lambda text: " ".join(re.findall(r"\w+", text.lower())))
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), dtype=np.float32).fit_transform(texts)
    rows_of = {split: np.flatnonzero(table["split"] == split) for split in SPLITS}
    long = (texts.str.count(r"\S+") >= WORDS).to_numpy()
    short_pairs = 0
    for later, earlier in (("valid", "train"), ("test", "train"), ("test", "valid")):
        if not len(rows_of[later]) or not len(rows_of[earlier]):
            continue
        others = vectors[rows_of[earlier]].T.tocsr()
        pairs: list[tuple[str, str]] = []
        blocks = range(0, len(rows_of[later]), 256)
        for start in tqdm(blocks, desc=f"texts of {later} in {earlier}", disable=len(blocks) < 8):
            rows = rows_of[later][start : start + 256]
            cosines = (vectors[rows] @ others).tocsr()
            best = rows_of[earlier][np.asarray(cosines.argmax(axis=1)).ravel()]
            for row, other, cosine in zip(rows, best, cosines.max(axis=1).toarray().ravel(), strict=True):
                if cosine >= near - 1e-6 and long[row]:
                    pairs.append((table["segment_id"][row], table["segment_id"][other]))
                elif cosine >= near - 1e-6:
                    short_pairs += 1
        found.overlap[f"texts of {later} nearly in {earlier}"] = len(pairs)
        if pairs:
            found.warnings.append(
                f"{len(pairs)} of {len(rows_of[later])} texts of {later} are nearly those of {earlier} (cosine of "
                f"character 3- to 5-grams {near:g} or more; first: {' and '.join(pairs[0])})"
            )
    if short_pairs:
        found.notes.append(f"{short_pairs} texts of fewer than {WORDS} words recur in another split, as such texts do")


def _feature_health(name: str, values: np.ndarray, found: Audit) -> None:
    """Counts of what is wrong, and lengths: frames from the first to the last that is not all zero."""
    bad = ~np.isfinite(values)
    clean = np.where(bad, 0, values)
    used = clean.reshape(-1, values.shape[-1])
    used = used[used.any(axis=1)]
    constant = int((used.min(0) == used.max(0)).sum()) if len(used) else values.shape[-1]
    zero = int((~clean.reshape(len(values), -1).any(axis=1)).sum())
    row: dict[str, Any] = {
        "array": name,
        "shape": " × ".join(map(str, values.shape)),
        "NaN": int(np.isnan(values).sum()),
        "infinite": int(np.isinf(values).sum()),
        "constant columns": constant,
        "all-zero segments": zero,
    }
    if values.ndim == 3:
        frames = (clean != 0).any(axis=2)
        lengths = np.where(frames.any(axis=1), values.shape[1] - frames[:, ::-1].argmax(axis=1), 0)
        row |= {"shortest": int(lengths.min()), "median": float(np.median(lengths)), "longest": int(lengths.max())}
    found.features.append(row)
    for count, what in (
        (int(bad.sum()), "values are not finite; readers of features.npz make them 0"),
        (constant, f"of {values.shape[-1]} columns never change"),
        (zero, f"of {len(values)} segments are all zero"),
    ):
        if count:
            found.warnings.append(f"{name}: {count} {what}")


def _pooled(values: np.ndarray) -> Float[np.ndarray, "segment columns"]:
    """Mean and standard deviation over the frames that are not all zero; a single vector as it is."""
    values = np.nan_to_num(np.asarray(values, np.float32), posinf=0, neginf=0)
    if values.ndim == 2:
        return values
    frames = (values != 0).any(axis=2)
    count = np.maximum(frames.sum(axis=1), 1)[:, None]
    mean = values.sum(axis=1) / count
    spread = (np.square(values - mean[:, None]) * frames[:, :, None]).sum(axis=1) / count
    return np.concatenate([mean, np.sqrt(spread)], axis=1)


def _conventional(corpus: Corpus, table: pd.DataFrame) -> dict[str, Any]:
    """Sound and video by the conventional sets, kept in a temporary folder."""
    import tempfile

    from msakit.encoders import load_encoder
    from msakit.features import extract

    inputs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for column, kind in (("audio", "acoustic-set"), ("video", "visual-set")):
            if column in table and table[column].notna().any():
                store = extract(corpus, load_encoder(kind), Path(folder), max_failed=1.0)
                frames = [store.frames(segment, 0).astype(np.float32) for segment in table["segment_id"]]
                inputs[f"{column} files"] = np.stack([np.concatenate([f.mean(0), f.std(0)]) for f in frames])
    return inputs


def _probe_all(corpus: Corpus, table: pd.DataFrame, inputs: dict[str, Any], found: Audit) -> None:
    parts = {split: table[table["split"] == split] for split in SPLITS}
    if any(part.empty for part in parts.values()):
        found.notes.append("no probe: it needs rows of train, valid and test")
        return
    labels = {split: part["label"].to_numpy() for split, part in parts.items()}
    for name, values in inputs.items():
        if values is None:
            matrices = _text_matrices(parts)
        else:
            scaled = Scaling.of_frames([values[parts["train"].index].astype(np.float64)])(values)
            matrices = {split: scaled[part.index] for split, part in parts.items()}
        row = {"modality": name} | _probe(corpus.task.kind, matrices, labels)
        modality = name.removesuffix(" files").replace("video", "vision")
        row["known"] = _check_scores(corpus, parts["test"], modality, row, found)
        found.probes.append(row)


def _text_matrices(parts: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """TF-IDF of words and pairs of words, weighted on train."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\S+")
    vectorizer.fit(parts["train"]["text"])
    return {split: vectorizer.transform(part["text"]) for split, part in parts.items()}


def _probe(kind: str, matrices: dict[str, Any], labels: dict[str, np.ndarray]) -> dict[str, Any]:
    """Scores on test of the penalty that does best on valid, and of the training median or the largest class."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error

    if kind == "regression":
        models = [Ridge(alpha=alpha).fit(matrices["train"], labels["train"]) for alpha in ALPHAS]
        errors = [mean_absolute_error(labels["valid"], model.predict(matrices["valid"])) for model in models]
        predicted, truth = models[int(np.argmin(errors))].predict(matrices["test"]), labels["test"]
        flat = predicted.std() == 0 or truth.std() == 0
        return {
            "mae": float(mean_absolute_error(truth, predicted)),
            "corr": float("nan") if flat else float(np.corrcoef(predicted, truth)[0, 1]),
            "mae of the median": float(np.abs(np.median(labels["train"]) - truth).mean()),
        }
    labels = {split: values.astype(int) for split, values in labels.items()}
    models = [LogisticRegression(C=1 / alpha, max_iter=500) for alpha in ALPHAS[:5]]
    scores = [
        model.fit(matrices["train"], labels["train"]).score(matrices["valid"], labels["valid"]) for model in models
    ]
    predicted, truth = models[int(np.argmax(scores))].predict(matrices["test"]), labels["test"]
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "macro-F1": float(f1_score(truth, predicted, average="macro")),
        "accuracy of the largest class": float((truth == np.bincount(labels["train"]).argmax()).mean()),
    }


def _check_scores(corpus: Corpus, test: pd.DataFrame, modality: str, scores: dict[str, Any], found: Audit) -> str:
    """What is known of such scores, as text; a warning for a score that lies outside."""
    item = CATALOGUE.get(corpus.name.lower().replace("_", "-"))
    bounds = [bound for bound in (item.scores if item else []) if bound.get("modality", modality) == modality]
    oracle, column = corpus.oracle(), f"prediction_{modality}"
    if oracle is not None and column in oracle:
        # The posterior mean given a modality minimises squared error, so its correlation is the highest there is.
        values = oracle.set_index("segment_id").loc[list(test["segment_id"]), column].to_numpy()
        highest = float(np.corrcoef(values, test["label"].to_numpy(float))[0, 1])
        bounds.append({"metric": "corr", "best": highest, "source": "oracle: the generator's posterior mean"})
    known = ["no published unimodal range known"]
    leaks = []
    for bound in bounds:
        metric, best, worst, source = bound["metric"], bound.get("best"), bound.get("worst"), bound["source"]
        value, sign = scores[metric], -1 if metric == "mae" else 1
        edges = " to ".join("?" if edge is None else f"{edge:.3f}" for edge in (best, worst))
        known.append(f"{metric} {edges} ({source})")
        if best is not None and sign * value > sign * best:
            leaks.append((metric, f"better than {best:.3f} ({source})"))
        if worst is not None and sign * value < sign * worst:
            found.warnings.append(
                f"a linear probe on {modality} has {metric} {value:.3f} on test, worse than {worst:.3f} ({source}): "
                "do its rows belong to these labels?"
            )
    metric = "corr" if corpus.task.kind == "regression" else "accuracy"
    if scores[metric] >= LEAK:
        leaks.append((metric, "nearly perfect"))
    found.warnings += [
        f"LABEL LEAK? a linear probe on {modality} has {metric} {scores[metric]:.3f} on test, {what}: look for the "
        "label, or something made from it, among its inputs"
        for metric, what in leaks
    ]
    return "; ".join(known)
