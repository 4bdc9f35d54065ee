"""Bills of materials: valid by CycloneDX's own schema, and of what is really in the bundle."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from harness.images import bundle, sbom
from harness.manifests import load_agent
from harness.paths import builtin
from harness.sandbox.daemon import connect
from harness.sandbox.removal import wait_for_removals


def valid(text: str) -> dict[str, Any]:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.docker
@pytest.mark.network
def test_a_bill_is_of_what_lies_in_the_bundle() -> None:
    with contextlib.closing(connect()) as client:
        agent = load_agent(builtin("agents") / "mini-swe-agent", "built in")
        made = bundle.ensure(client, agent, print)
        assert made is not None
        text = sbom.bill(client, agent, made, print)
        assert sbom.bill(client, agent, made, print) == text  # no time, no chance
        wait_for_removals()
    bill = valid(text)
    [agent_folder, key] = bill["metadata"]["component"]["properties"]
    assert (len(agent_folder["value"]), key["value"]) == (16, made.key)
    parts = bill["components"]
    packages = {part["name"]: part for part in parts if part["type"] == "library"}
    assert {name: part["version"] for name, part in packages.items()} == dict(made.packages)
    for part in packages.values():
        assert part["purl"].startswith("pkg:pypi/"), part
        assert part["licenses"], part
        [archives] = part["externalReferences"]
        assert archives["hashes"], f"{part['name']} is in the bundle and not in the lock"
    [python] = [part for part in parts if part["type"] == "platform"]
    assert (python["version"], len(python["hashes"])) == (made.python_version, 1)
    assert {part["ref"] for part in bill["dependencies"]} == {
        part["bom-ref"] for part in [*parts, bill["metadata"]["component"]]
    }


CONTENTS = {
    "python_version": "3.13.5",
    "python": {"path": "python/bin/python3.13", "sha256": "0" * 64},
    "libraries": [{"path": "python/lib/libc.so.6", "sha256": "1" * 64}],
    "packages": [],
}


def test_a_framework_that_only_git_has_is_named_by_its_commit_and_its_licence() -> None:
    agent = load_agent(builtin("agents") / "autocoderover", "built in")
    source = agent.manifest.source
    assert source is not None
    made = bundle.Bundle("0123456789abcdef", "volume", "debian", "3.13.5", {}, 1, "0" * 64)
    framework = sbom.parts_of(agent, made, CONTENTS)[0]
    assert framework.purl.to_string() == f"pkg:github/autocoderoversg/auto-code-rover@{source.commit}"
    assert [licence.name for licence in framework.licenses] == ["Sonar Source-Available License v1.0"]


@pytest.mark.parametrize(
    ("expression", "text", "classifiers", "found"),
    [
        ("Apache-2.0 OR MIT", None, [], "Apache-2.0 OR MIT"),
        (None, "BSD-3-Clause", ["License :: OSI Approved :: BSD License"], "BSD-3-Clause"),
        (None, "UNKNOWN", ["License :: OSI Approved", "License :: OSI Approved :: MIT License"], "MIT License"),
        (None, "MIT License\n\nPermission is hereby granted...", [], "MIT License"),
        (None, None, [], None),
    ],
)
def test_a_licence_is_what_the_package_says_of_it(
    expression: str | None, text: str | None, classifiers: list[str], found: str | None
) -> None:
    said = sbom.licences(expression, text, classifiers)
    assert [getattr(each, "value", None) or each.id or each.name for each in said] == ([found] if found else [])


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", "agents", "sbom", *words], capture_output=True, text=True, check=False
    )


@pytest.mark.docker
def test_a_bill_is_printed_or_written(tmp_path: Path) -> None:
    printed = command("nop")
    assert valid(printed.stdout)["metadata"]["component"]["name"] == "nop"
    file = tmp_path / "nop.json"
    written = command("nop", "-o", str(file))
    assert (written.returncode, written.stdout, file.read_text()) == (0, "", printed.stdout)


def test_an_agent_that_is_not_known_is_a_mistake_of_the_user() -> None:
    done = command("mini-swe-agnt")
    assert (done.returncode, "did you mean mini-swe-agent" in done.stderr) == (2, True)
    done = command("nop", "-o", "/no/such/folder/bill.json")
    assert (done.returncode, "there is no folder /no/such/folder" in done.stderr) == (2, True)
