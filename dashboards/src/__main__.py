"""`python -m dashboards.src`: writes each board to the file of its uid."""

from __future__ import annotations

from pathlib import Path

from dashboards.src import BOARDS
from dashboards.src.board import text

FOLDER = Path(__file__).parent.parent

for board in BOARDS:
    (FOLDER / f"{board.uid}.json").write_text(text(board))
