"""What every recipe shares: one experiment trains arms on one corpus, over seeds or folds, and records their runs.

A recipe resolves each arm's inputs, says how one run is trained, and leaves the rest to `Experiment.run`: partitions,
reference rows, arms of equal training done once, records.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped
from scipy.special import expit, softmax

from msakit.data.corpus import Corpus
from msakit.data.folds import Fold, Partitions, Rows
from msakit.runs.arm import Arm
from msakit.runs.jobs import Job, Outcome, run_jobs
from msakit.runs.record import CorpusInfo, Feature, FoldInfo, Record, TableInfo, TaskInfo, run_key
from msakit.runs.store import Runs, read_run, run_path
from msakit.strict import Strict, parse
from msakit.training.loop import Fit

logger = logging.getLogger(__name__)

# Columns of a corpus that say what kind of segment it is, or what one modality alone says: reports split by them.
ANNOTATIONS = ("kind", "text_label", "image_label", "text_polarity", "image_polarity")
MEAN = "mean"  # `model` of an arm that averages the stored predictions of others
REFERENCES = {
    "constant": "Constant (from the training labels)",
    "oracle-text": "Oracle, text alone",
    "oracle-audio": "Oracle, audio alone",
    "oracle-vision": "Oracle, vision alone",
    "oracle": "Oracle",
}


@dataclass(frozen=True)
class Case:
    """One run of an arm: its seed, its fold, and the rows of each split."""

    name: str  # of the arm
    arm: Arm
    seed: int
    fold: Fold | None
    rows: dict[str, Rows]

    @property
    def random_seed(self) -> int:
        """What the random numbers are seeded with: folds differ in it, too."""
        return self.seed + (0 if self.fold is None else self.fold.index)


@dataclass(frozen=True)
class Experiment:
    """Arms on one corpus.

    settings: the recipe's; an arm's own `settings` go over them. seeds: each arm is trained once with each, on every
    fold in folds. folds: 0 for the corpus's own split. test_folds: the folds to test on; None for all. root: folder of
    the runs.

    Raises:
        ValueError: a tested fold that there is not.
    """

    paper: str
    version: int
    corpus: Corpus
    settings: Strict
    seeds: Sequence[int]
    root: Path
    folds: int = 0
    test_folds: Sequence[int] | None = None

    def __post_init__(self) -> None:
        wrong = [fold for fold in self.test_folds or () if not 0 <= fold < max(self.folds, 1)]
        if wrong:
            raise ValueError(f"fold {wrong[0]} is not among the {self.folds} folds: they are 0 to {self.folds - 1}")

    @cached_property
    def partitions(self) -> Partitions:
        return Partitions(self.corpus, Path(self.root).parent / "folds" / self.corpus.name)

    @property
    def table(self) -> pd.DataFrame:
        """All labelled segments; the rows of a case are numbers of its rows."""
        return self.partitions.table

    @cached_property
    def label(self) -> Shaped[np.ndarray, " segments"]:
        """float32 numbers, or class indices."""
        classes = self.corpus.task.kind == "classification"
        return self.table["label"].to_numpy(np.int64 if classes else np.float64)

    @property
    def n_classes(self) -> int | None:
        """Of the corpus's task; None for regression."""
        return len(self.corpus.task.classes) or None

    def settings_of(self, arm: Arm) -> Any:
        """The experiment's settings with the arm's own over them."""
        values = self.settings.model_dump() | dict(arm.settings)
        return parse(type(self.settings), values, f"settings of {arm.title!r}")

    def cases(self, name: str, arm: Arm, seeds: Sequence[int] | None = None) -> Iterator[Case]:
        """The runs of an arm: over seeds, and over folds where the experiment has them and the protocol takes part."""
        protocol = arm.protocol
        if not self.folds or protocol.folds == "none":
            for seed in self.seeds if seeds is None else seeds:
                yield Case(name, arm, seed, None, self.partitions.own(protocol.stop, protocol.share, seed))
            return
        for index in range(self.folds) if self.test_folds is None else self.test_folds:
            fold = Fold(index, self.folds, protocol.folds)
            rows = self.partitions.fold(fold, protocol.stop)
            for seed in self.seeds:
                yield Case(name, arm, seed, fold, rows)

    def predictions(self, case: Case, split: str, values: Float[np.ndarray, "rows *classes"]) -> pd.DataFrame:
        """Predictions of one split in the columns that records store, beside ids, labels and annotations.

        Args:
            values: one number a row of the split or, for classes, logits: one a class, or a single one of the second of
                two classes. Probabilities are stored.
        """
        table = self._rows(case, split)
        if self.n_classes is None:
            return table.assign(prediction=values)
        return self._with_probabilities(table, probabilities(values))

    def _rows(self, case: Case, split: str) -> pd.DataFrame:
        rows = case.rows[split]
        columns = ["segment_id", "video_id", *(name for name in ANNOTATIONS if name in self.table)]
        table = self.table.iloc[rows][columns].reset_index(drop=True)
        table.insert(2, "split", split)
        table.insert(3, "label", self.label[rows])
        return table

    def _with_probabilities(self, table: pd.DataFrame, values: Float[np.ndarray, "rows classes"]) -> pd.DataFrame:
        return table.assign(**{f"p_{name}": values[:, k] for k, name in enumerate(self.corpus.task.classes)})

    # --- runs ---------------------------------------------------------------------------------------------------------

    def run(
        self,
        cases: Sequence[Case],
        features: Callable[[Arm], dict[str, Feature]],
        train: Callable[[Case], Outcome],
        *,
        keeps: Callable[[Case], bool] = lambda case: False,
    ) -> Runs:
        """Train the cases that are not recorded yet; gives back their runs and those of the references.

        Arms whose training is equal (model, arguments, loss, protocol, settings and resolved inputs) are trained once
        and recorded under each name; so are those of equal training that only score otherwise. An arm of the model
        ``mean`` averages what others have recorded. Either comes after what it rests on.

        Args:
            features: resolves the inputs of an arm.
            train: trains one case.
            keeps: whether a case leaves more than its record (a saved head, artifacts) and is trained in any case.

        Raises:
            ValueError: a mean of an arm that is not among the cases and not recorded.
        """
        jobs = self._references(cases)
        waiting = sorted(cases, key=lambda case: case.arm.model == MEAN)
        sources: dict[str, Case] = {}
        described: dict[str, dict[str, Feature]] = {}
        keys: dict[Path, str] = {}
        for case in waiting:
            parts = case.arm.args["of"] if case.arm.model == MEAN else []
            if case.name not in described:
                given = [described.get(part, {}) for part in parts] or [features(case.arm)]
                described[case.name] = {modality: each for part in given for modality, each in part.items()}
            rests_on = [keys.get(path) or _stored_key(path) for path in self._paths_of(case, parts)]
            record = self._record(case, described[case.name], rests_on=rests_on)
            keys[run_path(Path(self.root), record)] = record.key
            source = sources.setdefault(record.key, case)
            if case.arm.model == MEAN:
                jobs.append(Job(record, partial(self._mean, case)))
            elif source is case or keeps(case):
                jobs.append(Job(record, partial(train, case)))
            else:
                record = record.model_copy(update={"same_as": source.name})
                jobs.append(Job(record, partial(self._taken_over, case, source)))
        return run_jobs(jobs, Path(self.root))

    def _record(
        self, case: Case, features: dict[str, Feature], reference: bool = False, rests_on: Sequence[str] = ()
    ) -> Record:
        settings = {} if reference or case.arm.model == MEAN else self.settings_of(case.arm).model_dump()
        resolved = {name: each.model_dump(exclude={"encoder"}) for name, each in features.items()}
        fold = None if case.fold is None else FoldInfo(**asdict(case.fold))
        decisive = {
            "training": case.arm.training(),
            "features": resolved,
            "settings": settings,
            "seed": case.seed,
            "fold": fold and fold.model_dump(),
            "corpus": self.corpus.fingerprint,
            "version": self.version,
        }
        if reference:
            decisive["reference"] = case.name
        if rests_on:
            decisive["rests_on"] = list(rests_on)
        return Record(
            paper=self.paper,
            version=self.version,
            corpus=corpus_info(self.corpus),
            arm=case.name,
            definition=case.arm,
            reference=reference,
            seed=case.seed,
            fold=fold,
            features=features,
            settings=json.loads(json.dumps(settings)),
            key=run_key(decisive),
            predictions=TableInfo(sha256="", columns=[]),
        )

    def _taken_over(self, case: Case, source: Case) -> Outcome:
        """What an arm of equal training has on record; its run is there, for jobs run in order."""
        run = read_run(run_path(Path(self.root), self._record(source, {})))
        record, runtime = run.record, run.runtime
        fit = None
        if record.selection is not None:
            seconds = runtime.epoch_seconds if runtime else []
            history = [row | ({"seconds": s} if s else {}) for row, s in zip(record.history, seconds, strict=False)]
            epoch = record.selection.epoch
            fit = Fit(epoch, history, sum(seconds), history[epoch - 1])
        metric = record.selection.metric if record.selection else ""
        return Outcome(fit, metric, [run.predictions], record.measurements)

    def _paths_of(self, case: Case, names: Sequence[str]) -> list[Path]:
        """Where the runs of other arms of the same seed and fold lie."""
        records = [self._record(replace(case, name=name), {}) for name in names]
        return [run_path(Path(self.root), record) for record in records]

    def _mean(self, case: Case) -> Outcome:
        """The mean of stored predictions, over the segments that all of them scored."""
        names = case.arm.args["of"]
        tables = []
        for path in self._paths_of(case, names):
            if not path.is_file():
                raise ValueError(
                    f"{case.name} is the mean of {', '.join(names)}, but {path} is not there: add that arm"
                )
            tables.append(read_run(path).predictions.set_index(["segment_id", "split"]))
        shared = tables[0].index[np.all([tables[0].index.isin(table.index) for table in tables], axis=0)]
        mean = tables[0].loc[shared].copy()
        columns = [name for name in mean if name == "prediction" or name.startswith("p_")]
        mean[columns] = np.mean([table.loc[shared, columns].to_numpy(float) for table in tables], axis=0)
        order = ["segment_id", "video_id", "split"]
        mean = mean.reset_index()
        return Outcome(None, "", [mean[[*order, *(name for name in mean if name not in order)]]], self.sizes(case))

    def sizes(self, case: Case) -> dict[str, Any]:
        """What every run measures: how many segments each part has."""
        return {"segments": {split: len(rows) for split, rows in case.rows.items()}}

    # --- references ---------------------------------------------------------------------------------------------------

    def _references(self, cases: Sequence[Case]) -> list[Job]:
        """Runs that train nothing, once for each fold: ``constant`` and, for a generated corpus, ``oracle``.

        The constant is the median of the training labels, or their classes' shares. The oracle is the generator's
        posterior mean, or its posterior probabilities: given everything that the generator drew, the best possible
        predictor in expected squared error. ``oracle-<modality>`` is given that modality alone.
        """
        jobs = []
        parts: dict[int | None, Case] = {}
        for case in cases:
            sound = case.arm.protocol.folds != "shuffled" and not case.arm.protocol.leaks
            if sound and (case.fold is not None or not self.folds):
                parts.setdefault(case.fold and case.fold.index, case)
        for case in parts.values():
            rows = case.rows if case.fold else self.partitions.own()
            for name, values in self._reference_values(rows).items():
                arm = Arm(title=REFERENCES[name], model="reference")
                own = Case(name, arm, 0, case.fold, rows)
                jobs.append(Job(self._record(own, {}, reference=True), partial(self._reference, own, values)))
        return jobs

    def _reference_values(self, rows: Mapping[str, Rows]) -> dict[str, Float[np.ndarray, "segments *classes"]]:
        """By reference, values of all labelled segments."""
        train, count = self.label[rows["train"]], len(self.table)
        if self.n_classes is None:
            constant: np.ndarray = np.array([np.median(train)])
        else:
            constant = np.bincount(train, minlength=self.n_classes)[None] / len(train)
        values = {"constant": np.repeat(constant, count, axis=0)}
        oracle = self.corpus.oracle()
        if oracle is None:
            return values
        oracle = oracle.set_index("segment_id").loc[list(self.table["segment_id"])]
        if self.n_classes is not None:
            return values | {"oracle": oracle[[f"p_{name}" for name in self.corpus.task.classes]].to_numpy()}
        names = {str(column): str(column).replace("prediction", "oracle").replace("_", "-") for column in oracle}
        return values | {name: oracle[column].to_numpy() for column, name in names.items() if name in REFERENCES}

    def _reference(self, case: Case, values: Float[np.ndarray, "segments *classes"]) -> Outcome:
        tables = []
        for split in ("valid", "test"):
            table, part = self._rows(case, split), values[case.rows[split]]
            classes = self.n_classes is not None
            tables.append(self._with_probabilities(table, part) if classes else table.assign(prediction=part))
        return Outcome(None, "", tables, self.sizes(case))


def _stored_key(path: Path) -> str:
    """The key of a run that is on record; "" where there is none."""
    return read_run(path).record.key if path.is_file() else ""


def corpus_info(corpus: Corpus) -> CorpusInfo:
    """What a record says of a corpus."""
    task = corpus.task
    regression = task.kind == "regression"
    return CorpusInfo(
        name=corpus.name,
        fingerprint=corpus.fingerprint,
        generated=corpus.generated,
        task=TaskInfo(
            kind=task.kind,
            low=float(task.low) if regression else None,
            high=float(task.high) if regression else None,
            classes=list(task.classes),
        ),
        counts={split: len(rows) for split, rows in corpus.splits.items()},
    )


def probabilities(logits: Float[np.ndarray, "rows outputs"]) -> Float[np.ndarray, "rows classes"]:
    """Of logits, or of the one logit of two classes (the second's)."""
    if logits.shape[1] == 1:
        return np.concatenate([expit(-logits), expit(logits)], axis=1)
    return softmax(logits, axis=1)
