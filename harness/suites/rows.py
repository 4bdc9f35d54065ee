"""The rows of a published data set: out of a file, or by `datasets` from its hub at a pinned revision."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.errors import MachineError, UserError
from harness.suites.hosts import HTTPS, answers

DATA_VARIABLE = "HARNESS_DATA"
HUB = "https://huggingface.co"

# Exceptions of `datasets` and of the hub's client.
NOT_THERE = ("DatasetNotFoundError", "RepositoryNotFoundError", "RevisionNotFoundError", "DataFilesNotFoundError")


def rows_of(dataset: str, revision: str, split: str, data: Path | None) -> tuple[str, Iterable[Mapping[str, Any]]]:
    """Where the rows of a data set are from, in words, and the rows: out of a file (`data`, else HARNESS_DATA), else
    from the hub or its cache.

    Raises UserError for a file that is none of rows, and when the hub has no such data set; MachineError when it can't
    be fetched.
    """
    flag = "--data"
    if data is None and os.environ.get(DATA_VARIABLE):
        data, flag = Path(os.environ[DATA_VARIABLE]), DATA_VARIABLE
    if data is None:
        return f"{dataset}@{revision[:12]}", _fetch(dataset, revision, split)
    return str(data), _read(data, flag)


def _read(path: Path, flag: str) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    number = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise UserError(f"{path}: line {number}: expected a JSON object, found {line.strip()[:40]!r}")
                rows.append(row)
    except FileNotFoundError:
        raise UserError(f"{flag} {path}: there is no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{flag} {path}: expected JSON Lines in UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{flag} {path}: line {number}: expected JSON Lines, one instance a line: {error}") from error
    except OSError as error:
        raise UserError(f"{flag} {path}: can't be read: {error.strerror}") from error
    return rows


def _fetch(dataset: str, revision: str, split: str) -> list[Mapping[str, Any]]:
    proxied = any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    if not proxied and not answers(*_hub()):
        os.environ["HF_HUB_OFFLINE"] = "1"  # what is in its cache is found at once, and what is not is missed at once
    try:
        import datasets
    except ImportError as error:
        raise MachineError(
            f"{dataset} needs the package datasets: `pip install 'agent-energy-harness[swebench]'`, "
            f"or name a file of its rows with --data"
        ) from error
    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(dataset, split=split, revision=revision)
    except Exception as error:
        kind = type(error).__name__
        where = f"data set {dataset} at revision {revision[:12]}"
        if kind in NOT_THERE:
            raise UserError(
                f"the hub has no {where} that this machine can reach: check its name and the network, "
                "or name a file of its rows with --data"
            ) from error
        said = str(error).strip().splitlines()
        raise MachineError(
            f"{where} can't be fetched ({said[0][:160] if said else kind}): name a file of its rows with --data"
        ) from error
    return [dict(row) for row in rows]


def _hub() -> tuple[str, int]:
    """Host and port of the hub. Raises UserError when HF_ENDPOINT is no address."""
    endpoint = os.environ.get("HF_ENDPOINT") or HUB
    try:
        found = urlsplit(endpoint)
        return found.hostname or "", found.port or HTTPS
    except ValueError as error:
        raise UserError(f"HF_ENDPOINT={endpoint}: {error}") from error
