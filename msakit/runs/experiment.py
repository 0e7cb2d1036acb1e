"""What every recipe shares: one experiment trains arms on one corpus, over seeds or folds, and records their runs.

A recipe resolves each arm's inputs, says how one run is trained, and leaves the rest to `Experiment.run`: partitions,
reference rows, arms of equal training done once, records.
"""

import json
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
from msakit.runs.arm import MEAN, Arm
from msakit.runs.jobs import Job, Outcome, run_jobs
from msakit.runs.record import KEYS, CorpusInfo, Feature, FoldInfo, Record, TableInfo, TaskInfo, run_key, values_of
from msakit.runs.store import Runs, read_run, run_path
from msakit.strict import Strict, parse

# Columns of a corpus that say what kind of segment it is, or what one modality alone says: reports split by them.
ANNOTATIONS = ("kind", "text_label", "image_label", "text_polarity", "image_polarity")
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
        ValueError: a tested fold that there is not, a seed given twice.
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
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are {list(self.seeds)}: name each of them once")

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
        """The runs of an arm: over seeds, and over folds where the experiment has them and the protocol takes part.

        A share is one of the corpus's own training split, in folds too.
        """
        protocol = arm.protocol
        if not self.folds or protocol.folds == "none" or protocol.share < 100:
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
        return self._scored(case, split, values if self.n_classes is None else probabilities(values))

    def _scored(self, case: Case, split: str, values: Float[np.ndarray, "rows *classes"]) -> pd.DataFrame:
        """What a record stores of the rows of a split, with values that are numbers or probabilities."""
        rows = case.rows[split]
        columns = ["segment_id", "video_id", *(name for name in ANNOTATIONS if name in self.table)]
        table = self.table.iloc[rows][columns].reset_index(drop=True)
        table.insert(2, "split", split)
        table.insert(3, "label", self.label[rows])
        if self.n_classes is None:
            return table.assign(prediction=values)
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
            ValueError: a mean of an arm that is neither among the cases nor recorded, or has other folds or another
                stop; an arm that is called as a reference is.
        """
        if taken := {case.name for case in cases} & set(REFERENCES):
            raise ValueError(f"arm {min(taken)!r} is called as a reference row is: choose another name")
        jobs = self._references(cases)
        records: dict[tuple[Any, ...], Record] = {}
        sources: dict[str, str] = {}
        described: dict[str, dict[str, Feature]] = {}
        for case in cases:
            if case.arm.model == MEAN:
                continue
            if case.name not in described:
                described[case.name] = features(case.arm)
            record = self._record(case, described[case.name])
            source = sources.setdefault(record.key, case.name)
            records[record.identity] = record
            if source == case.name or keeps(case):
                jobs.append(Job(record, partial(train, case)))
            else:
                jobs.append(Job(record.model_copy(update={"same_as": source}), None))
        for case in cases:
            if case.arm.model == MEAN:
                parts = self._parts(case, records)
                jobs.append(Job(self._record(case, {}, parts=parts), partial(self._mean, case, parts)))
        return run_jobs(jobs, Path(self.root))

    def _parts(self, case: Case, records: Mapping[tuple[Any, ...], Record]) -> list[Record]:
        """The records of what a mean averages: of this call, or on disk from an earlier one."""
        found, names = [], case.arm.args["of"]
        for name in names:
            part = self._record(replace(case, name=name), {})
            path = run_path(Path(self.root), part)
            if part.identity not in records and not path.is_file():
                raise ValueError(
                    f"{case.name} is the mean of {', '.join(names)}, but {path} is not there: add that arm"
                )
            record = records.get(part.identity) or read_run(path).record
            if record.fold != part.fold or record.definition.protocol.leaks != case.arm.protocol.leaks:
                raise ValueError(f"{case.name} cannot average {name}: give both the same folds and the same stop")
            found.append(record)
        return found

    def _record(
        self, case: Case, features: dict[str, Feature], reference: bool = False, parts: Sequence[Record] = ()
    ) -> Record:
        for part in parts:
            features = features | part.features
        settings = {} if reference or case.arm.model == MEAN else self.settings_of(case.arm).model_dump()
        resolved = {name: each.model_dump(exclude={"encoder", "checkpoint"}) for name, each in features.items()}
        fold = None if case.fold is None else FoldInfo(**asdict(case.fold))
        decisive = {
            "training": case.arm.training(),
            "features": resolved,
            "settings": settings,
            "seed": case.seed,
            "fold": fold and fold.model_dump(),
            "corpus": self.corpus.fingerprint,
            "task": self.corpus.task.model_dump(),
            "version": self.version,
        }
        if reference:
            decisive["reference"] = case.name
        if parts:
            decisive["parts"] = [part.key for part in parts]
        return Record(
            paper=self.paper,
            version=self.version,
            corpus=_corpus_info(self.corpus),
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

    def _mean(self, case: Case, parts: Sequence[Record]) -> Outcome:
        """The mean of stored predictions, over the segments that all of them scored."""
        runs = [read_run(run_path(Path(self.root), part)) for part in parts]
        tables = [run.predictions.set_index(["segment_id", "split"]) for run in runs]
        shared = tables[0].index[np.all([tables[0].index.isin(table.index) for table in tables], axis=0)]
        mean = tables[0].loc[shared].reset_index()
        values = values_of(mean)
        mean[values] = np.mean([table.loc[shared, values].to_numpy(float) for table in tables], axis=0)
        # Nothing else of the first: its gates are not those of the mean.
        columns = [*KEYS, *(name for name in ANNOTATIONS if name in mean), *values]
        return Outcome(None, "", [mean[columns]], self.sizes(case))

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
                parts.setdefault(None if case.fold is None else case.fold.index, case)
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
        tables = [self._scored(case, split, values[case.rows[split]]) for split in ("valid", "test")]
        return Outcome(None, "", tables, self.sizes(case))


def _corpus_info(corpus: Corpus) -> CorpusInfo:
    bounds = {"low", "high"} if corpus.task.kind == "classification" else set()
    return CorpusInfo(
        name=corpus.name,
        fingerprint=corpus.fingerprint,
        generated=corpus.generated,
        task=TaskInfo(**corpus.task.model_dump(exclude=bounds)),
        counts={split: len(rows) for split, rows in corpus.splits.items()},
    )


def probabilities(logits: Float[np.ndarray, "rows outputs"]) -> Float[np.ndarray, "rows classes"]:
    """Of logits, or of the one logit of two classes (the second's)."""
    if logits.shape[1] == 1:
        return np.concatenate([expit(-logits), expit(logits)], axis=1)
    return softmax(logits, axis=1)
