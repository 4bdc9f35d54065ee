"""What tests need of the machine, said by their marks: a test is skipped only with a reason that names what is
missing, and where HARNESS_TESTS_REQUIRE lists that need (as CI does), it fails instead."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def _docker() -> str | None:
    from harness.errors import MachineError
    from harness.sandbox.daemon import connect

    try:
        connect(timeout_s=10).close()
    except MachineError as error:
        return str(error)
    return None


def _model() -> str | None:
    from harness.engines.weights import is_fetched

    return None if is_fetched("smollm2:135m") else "the weights of smollm2:135m are missing: run `make setup`"


def _ollama() -> str | None:
    import httpx

    host = os.environ.get("OLLAMA_HOST", "127.0.0.1:11434")
    try:
        names = [m["name"] for m in httpx.get(f"http://{host}/api/tags", timeout=5).json()["models"]]
    except (httpx.HTTPError, KeyError, ValueError):
        return f"no Ollama server answers at {host}"
    return None if "smollm2:135m" in names else f"the Ollama server at {host} has no model smollm2:135m"


def _network() -> str | None:
    import subprocess

    import uv

    # The index that the user's own configuration names.
    found = subprocess.run(
        [uv.find_uv_bin(), "pip", "compile", "--quiet", "--no-header", "-"],
        input=b"six",
        capture_output=True,
        check=False,
        timeout=60,
    )
    return None if found.returncode == 0 else "no package index can be reached"


def _dataset() -> str | None:
    from harness.errors import HarnessError
    from harness.suites import load_suite

    try:
        load_suite("swe-bench-verified-mini")
    except HarnessError as error:
        return f"the rows of SWE-bench Verified Mini are not at hand (HARNESS_DATA): {error}"
    return None


def _latex() -> str | None:
    return None if shutil.which("pdflatex") else "pdflatex is missing: install texlive-latex-recommended"


def _chromium() -> str | None:
    import shutil

    names = ("chromium", "chromium-browser", "google-chrome")
    return None if any(map(shutil.which, names)) else f"no browser is installed: none of {', '.join(names)}"


def _faketime() -> str | None:
    found = list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return None if found else "libfaketime is missing: install faketime"


NEEDS: dict[str, Callable[[], str | None]] = {
    "docker": functools.cache(_docker),
    "model": functools.cache(_model),
    "ollama": functools.cache(_ollama),
    "network": functools.cache(_network),
    "latex": functools.cache(_latex),
    "dataset": functools.cache(_dataset),
    "chromium": functools.cache(_chromium),
    "faketime": functools.cache(_faketime),
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    required = os.environ.get("HARNESS_TESTS_REQUIRE", "").split(",")
    for name, missing in NEEDS.items():
        if item.get_closest_marker(name) and (reason := missing()):
            if name in required:
                pytest.fail(f"{name} is required here: {reason}")
            pytest.skip(reason)
