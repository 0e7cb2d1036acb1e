"""What the pre-training tasks share: reading a pool, the loop from seed to saved folder, masking, tokenizers."""

import json
import logging
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import trange
from transformers import BertTokenizer

from msakit.files import new_folder

log = logging.getLogger(__name__)

Pools = dict[str, Path]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# Of the mini transformers of BERT's kind, which are trained without dropout.
SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


@dataclass(frozen=True)
class Task:
    """One pre-training: what is minimised, what is measured on held-out examples, and what is saved."""

    objective: str
    metric: str
    better: str  # "up" or "down"
    measure: Callable[[], float]  # the held-out metric; called in eval mode and without gradients
    saved: dict[str, list[Any]]  # by folder inside the encoder's ("." is that itself): what has `save_pretrained`
    steps: int = 1
    model: nn.Module | None = None  # what is trained; None where there are no steps
    loss: Callable[[int], Float[Tensor, ""]] | None = None  # of a step, which draws its own batch
    rate: float = 1e-3
    start: Callable[[], None] | None = None  # sets weights after the metric at initialisation, before the first step


def run(make: Callable[..., Task], needs: list[Path], out: Path, pools: Pools, seed: int, steps: int | None) -> None:
    """Seed, measure, train, measure, and save to `out`, which appears once whole."""
    started = time.perf_counter()
    torch.manual_seed(seed)
    task = make(pools, seed, *needs)
    steps = steps or task.steps
    before = _measured(task)
    if task.start is not None:
        task.start()
    if task.model is not None and task.loss is not None:
        optimise(task.model, task.loss, steps, task.rate, f"pre-train {out.name}")
    after = _measured(task)
    seconds = round(time.perf_counter() - started, 2)
    held_out = {"metric": task.metric, "before": before, "after": after, "better": task.better}
    record = {"objective": task.objective, "steps": steps, "seed": seed, "seconds": seconds, "held_out": held_out}
    with new_folder(out) as partial:
        for folder, parts in task.saved.items():
            for part in parts:
                part.save_pretrained(partial / folder)
        (partial / "pretraining.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if out.exists():  # a folder of an older run, or one without pretraining.json
            shutil.rmtree(out)
    log.info("%s: %s %.4g -> %.4g in %.1f s", out.name, task.metric, before, after, seconds)


@torch.no_grad()
def _measured(task: Task) -> float:
    if task.model is not None:
        task.model.eval()
    return task.measure()


def pool_texts(pools: Pools) -> list[str]:
    """Every text of every pool: texts.txt (one a line), and the text and caption columns of segments.csv."""
    texts: list[str] = []
    for folder in pools.values():
        texts += [line.strip() for line in (folder / "texts.txt").read_text(encoding="utf-8").splitlines()]
        table = pool_table(folder)
        for column in ("text", "caption"):
            if column in table:
                texts += table[column].dropna().tolist()
    return [text for text in texts if text.strip()]


def pool_documents(folder: Path) -> list[list[str]]:
    """The documents of a pool's texts.txt: their sentences, one a line there, a blank line after each document."""
    text = (folder / "texts.txt").read_text(encoding="utf-8").strip()
    return [document.splitlines() for document in text.split("\n\n") if document.strip()]


def pool_table(folder: Path) -> pd.DataFrame:
    """segments.csv of a pool; media columns become absolute paths."""
    table = pd.read_csv(folder / "segments.csv", dtype=str)
    for column in ("audio", "video", "image"):
        if column in table:
            table[column] = [str(folder / name) if isinstance(name, str) else None for name in table[column]]
    return table


def hold_out(count: int, seed: int) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " held"]]:
    """Row numbers to train on and to hold out, a tenth and at least one of each."""
    order = np.random.default_rng(seed).permutation(count)
    held = max(1, round(0.1 * count))
    if count <= held:
        raise ValueError(f"{count} examples are too few to pre-train on")
    return order[held:], order[:held]


def optimise(model: nn.Module, loss: Callable[[int], Float[Tensor, ""]], steps: int, rate: float, title: str) -> None:
    """AdamW with linear warm-up over a tenth of the steps and cosine decay to zero. Gradients clipped at 1."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    first = max(1, round(0.1 * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min(
            (step + 1) / first, 0.5 * (1 + math.cos(math.pi * max(0, step - first) / max(1, steps - first)))
        ),
    )
    model.train()
    bar = trange(steps, desc=title, unit="step", mininterval=1.0)
    for step in bar:
        optimiser.zero_grad()
        value = loss(step)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{value.item():.3f}")


def draws(rows: Int[np.ndarray, " row"], batch: int, seed: int) -> Iterator[Int[np.ndarray, " batch"]]:
    """Endless batches of row numbers, each pass over the rows in a new order."""
    generator = np.random.default_rng(seed)
    queue = np.empty(0, dtype=rows.dtype)
    while True:
        while len(queue) < batch:
            queue = np.concatenate([queue, generator.permutation(rows)])
        yield queue[:batch]
        queue = queue[batch:]


def word_pieces(texts: list[str], size: int, max_length: int) -> BertTokenizer:
    """A lower-casing WordPiece tokenizer: the commonest words that occur twice, and single characters for the rest.

    The trainers of `tokenizers` break ties at random, so that one seed would give different models on each run.
    """
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    normalise, split = BertNormalizer(lowercase=True), BertPreTokenizer()
    counts = Counter(word for text in texts for word, _ in split.pre_tokenize_str(normalise.normalize_str(text)))
    letters = sorted({letter for word in counts for letter in word})
    words = [word for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if count > 1]
    pieces = [*SPECIALS, *letters, *(f"##{letter}" for letter in letters), *words]
    vocabulary = {piece: number for number, piece in enumerate(list(dict.fromkeys(pieces))[:size])}
    # transformers 5 takes the dict itself; a vocab_file would be ignored without a word.
    return BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=max_length)


def pad(sequences: list[list[int]]) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
    """Token ids padded on the right by 0, and their attention mask."""
    ids = pad_sequence([torch.tensor(sequence) for sequence in sequences], batch_first=True)
    mask = pad_sequence([torch.ones(len(sequence), dtype=torch.long) for sequence in sequences], batch_first=True)
    return ids, mask


def mask_tokens(
    ids: Int[Tensor, "batch time"], tokenizer: BertTokenizer, generator: torch.Generator
) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
    """BERT's corruption: 15 % of the tokens, of these 80 % to [MASK], 10 % to a random one; labels -100 elsewhere."""
    special = ids < len(SPECIALS)
    chance = torch.rand(ids.shape, generator=generator).masked_fill(special, 1.0)
    chosen = chance < 0.15
    # A text in which nothing was drawn gives up its likeliest token, so that no batch is without a target.
    chosen |= (chance == chance.min(dim=1, keepdim=True).values) & ~special
    labels = ids.masked_fill(~chosen, -100)
    kind = torch.rand(ids.shape, generator=generator)
    random = torch.randint(len(SPECIALS), len(tokenizer), ids.shape, generator=generator)
    corrupted = torch.where(chosen & (kind < 0.8), torch.full_like(ids, int(tokenizer.mask_token_id)), ids)
    return torch.where(chosen & (kind >= 0.9), random, corrupted), labels
