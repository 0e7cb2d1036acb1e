"""Small corpora made once for all tests of this folder, and a hand-made folder that each test may spoil."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from small_corpora import SMALL, make


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """name -> folder of a small generated corpus; read only."""
    root = tmp_path_factory.mktemp("corpora")
    return {name: make(name, root / name) for name in SMALL}


ROWS = [
    dict(segment_id=f"v{v}_{c}", video_id=f"v{v}", clip_id=str(c), split=split, label="1.5", text="so good")
    for v, split in ((1, "train"), (2, "valid"), (3, "test"))
    for c in (1, 2)
]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """write(changes) -> folder with six good rows, changed as in {row index: {column: value}}."""

    def writer(changes: dict[int, dict[str, str]] | None = None, drop: tuple[str, ...] = (), extra: str = "") -> Path:
        table = pd.DataFrame(ROWS)
        for index, values in (changes or {}).items():
            for column, value in values.items():
                if column not in table:
                    table[column] = ""
                table.loc[index, column] = value
        folder = tmp_path / "hand-made"
        folder.mkdir(exist_ok=True)
        (folder / "segments.csv").write_text(table.drop(columns=list(drop)).to_csv(index=False) + extra)
        return folder

    return writer
