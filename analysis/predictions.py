"""The patches of a sweep as predictions that SWE-bench's own command evaluates. Reads the store and nothing else."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from harness.analysis.names import label


def write_predictions(db: Database, runs_dir: Path, sweep_id: str, folder: Path) -> list[dict[str, Any]]:
    """One file in `folder` for each agent, model and repetition, since it may name an instance only once.

    A run without a patch is an empty prediction; one that the machine spoilt is none. Returns a row for each file.
    Raises OSError.
    """
    runs = db.query(
        "SELECT runs.*, endings.counts, artefacts.path FROM runs JOIN endings USING (ended_by) LEFT JOIN artefacts "
        "ON artefacts.run_id = runs.run_id AND artefacts.name = 'patch.diff' WHERE sweep_id = ? ORDER BY task",
        [sweep_id],
    )
    cells: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for run in runs:
        cells.setdefault((run["agent"], label(run["engine"], run["model"]), run["repetition"]), []).append(run)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for (agent, model, repetition), group in sorted(cells.items()):
        name = f"{agent}+{model}"
        valid = [run for run in group if run["counts"]]
        lines = [
            {
                "instance_id": run["task"],
                "model_name_or_path": name,
                "model_patch": _text(runs_dir / run["path"]) if run["path"] else "",
            }
            for run in valid
        ]
        path = folder / f"predictions-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}-{repetition}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        files.append(
            {
                "file": str(path),
                "agent": agent,
                "model": model,
                "repetition": repetition,
                "predictions": len(lines),
                "empty": sum(not line["model_patch"] for line in lines),
                "left_out": len(group) - len(valid),
            }
        )
    return files


def _text(path: Path) -> str:
    """A patch; bytes that are no UTF-8 can't be in a prediction, which is JSON."""
    try:
        return gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace")
    except (OSError, EOFError, zlib.error) as error:
        raise OSError(getattr(error, "errno", None) or 0, f"can't be read ({error})", str(path)) from error
