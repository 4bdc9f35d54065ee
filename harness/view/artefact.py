"""A file of a run, as a download. Only what the table `artefacts` names, and only inside the runs folder."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from harness.view.reading import Reading, Unknown

TEXTS = (".log", ".diff", ".json", ".jsonl", ".txt")
BLOCK = 1 << 18


def download(store: Reading, request: Request) -> Response:
    run_id, name = request.path_params["run_id"], request.path_params["name"]
    row = store.db.execute("SELECT path FROM artefacts WHERE run_id = ? AND name = ?", [run_id, name]).fetchone()
    if row is None:
        names = [name for (name,) in store.db.execute("SELECT name FROM artefacts WHERE run_id = ?", [run_id])]
        raise Unknown(f"run {run_id!r} has no file {name!r}; it has {', '.join(sorted(names)) or 'none'}")
    path = (store.runs_dir / row[0]).resolve()
    if not path.is_relative_to(store.runs_dir.resolve()):
        raise Unknown(f"the file {name!r} of run {run_id!r} is said to lie outside of the runs folder")
    try:
        with gzip.open(path, "rb") as file:
            file.read(1)
    except (OSError, EOFError, zlib.error) as error:
        raise Unknown(f"the file {name!r} of run {run_id!r} can't be read at {path}: {error}") from None
    saved = f"{run_id}-{name.replace('/', '-')}"
    return StreamingResponse(
        _content(path),
        media_type="text/plain; charset=utf-8" if name.endswith(TEXTS) else "application/octet-stream",
        headers={"Content-Disposition": f"attachment; filename*=UTF-8''{quote(saved)}"},
    )


def _content(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") as file:
        while block := file.read(BLOCK):
            yield block
