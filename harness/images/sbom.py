"""A software bill of materials of an agent, in CycloneDX: what is in its bundle, read there and not in the lock.

It is the same every time for the same bundle and folder: its serial number follows from its content, and it has no
time. Needs the package cyclonedx-python-lib.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import docker
from cyclonedx.contrib.hash.factories import HashTypeFactory
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, License
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from docker.types import Mount
from packageurl import PackageURL

from harness import __version__
from harness.images import bases, bundle
from harness.images.bases import Say
from harness.images.bundle import Bundle
from harness.manifests import Agent
from harness.plan import agent_hash
from harness.sandbox.command import SandboxError
from harness.sandbox.container import Limits, running, tar_of

LOOK = Path(__file__).with_name("bundle_contents.py")
LIMITS = Limits(cpus=1.0, memory_bytes=1 << 30, disk_bytes=1 << 30, deadline_s=300.0)

PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==([^\s;]+)")
HASH = re.compile(r"--hash=(\w+):([0-9a-f]+)")
GITHUB = re.compile(r"https://github\.com/([^/]+)/([^/]+?)(?:\.git)?/?")
SERIALS = uuid.UUID("c58ee5e8-2c26-5a0c-9d5c-0f5a0a1b7d3e")
HASHES, LICENCES = HashTypeFactory(), LicenseFactory()
SHORT = 100  # characters; a field `License` that has more holds the licence's text


def bill(client: docker.DockerClient, agent: Agent, made: Bundle | None, say: Say) -> str:
    """The bill of an agent and its bundle, as CycloneDX JSON. Raises MachineError when the bundle can't be read."""
    parts = [] if made is None else parts_of(agent, made, _contents(client, agent, made, say))
    bom = Bom(components=parts, metadata=BomMetaData(component=_agent(agent, made)))
    bom.metadata.timestamp = None  # the format needs none, and a second bill is the same
    harness = Component(name="agent-energy-harness", version=__version__, type=ComponentType.APPLICATION)
    bom.metadata.tools = ToolRepository(components=[harness])
    assert bom.metadata.component is not None
    bom.register_dependency(bom.metadata.component, parts)
    bom.serial_number = uuid.UUID(int=0)
    bom.serial_number = uuid.uuid5(SERIALS, _as_json(bom))
    return _as_json(bom) + "\n"


def _as_json(bom: Bom) -> str:
    return str(make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2))


def _contents(client: docker.DockerClient, agent: Agent, made: Bundle, say: Say) -> dict[str, Any]:
    base = f"debian:{bundle.choose_python(agent.manifest.python)[2]}-slim"
    bases.ensure_base(client, base, say)
    output = bytearray()
    with running(
        client, base, kind="build", limits=LIMITS, files=tar_of({"/harness/look.py": LOOK}),
        mounts=[Mount(bundle.MOUNT, made.volume, type="volume", read_only=True)],
    ) as container:  # fmt: skip
        done = container.exec([made.python, "-I", "/harness/look.py"], sink=output.extend)
    if done.code != 0:
        said = output.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise SandboxError(f"the bundle of {agent.name} can't be read: {said[0]}")
    found: dict[str, Any] = json.loads(output)
    return found


def _agent(agent: Agent, made: Bundle | None) -> Component:
    manifest = agent.manifest
    upstream = manifest.upstream
    return Component(
        name=agent.name,
        version=manifest.version,
        type=ComponentType.APPLICATION,
        bom_ref=f"agent:{agent.name}",
        description=manifest.summary,
        licenses=licences(manifest.licence),
        external_references=_references(ExternalReferenceType.WEBSITE, upstream)
        if upstream and upstream.startswith("http")
        else [],
        properties=_properties({"agent-folder": agent_hash(agent), "bundle": made.key if made else None}),
    )


def parts_of(agent: Agent, made: Bundle, contents: Mapping[str, Any]) -> list[Component]:
    """What a bundle is made of; `contents` is what bundle_contents.py printed of it."""
    hashes = _locked(agent.lock) if agent.lock else {}
    version = contents["python_version"]
    python = Component(
        name="python",
        version=version,
        type=ComponentType.PLATFORM,
        bom_ref="python",
        licenses=licences("PSF-2.0"),
        purl=PackageURL("generic", None, "python", version),
        cpe=f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*",
        hashes=[HASHES.from_composite_str(f"sha256:{contents['python']['sha256']}")],
        properties=_properties({"from": made.runtime, "path": contents["python"]["path"]}),
    )
    libraries = [
        Component(
            name=library["path"],
            type=ComponentType.FILE,
            bom_ref=f"file:{library['path']}",
            hashes=[HASHES.from_composite_str(f"sha256:{library['sha256']}")],
        )
        for library in contents["libraries"]
    ]
    packages = [_package(package, hashes) for package in contents["packages"]]
    return [*_source(agent), python, *libraries, *packages]


def _source(agent: Agent) -> list[Component]:
    """The framework's own checkout, of one that only git has."""
    source = agent.manifest.source
    if source is None:
        return []
    place = GITHUB.fullmatch(source.repository)
    where = {"vcs_url": f"git+{source.repository}@{source.commit}"}
    purl = (
        PackageURL("github", place[1], place[2], source.commit)
        if place
        else PackageURL("generic", None, source.name.rpartition("/")[2], source.commit, where)
    )
    return [
        Component(
            name=source.name,
            version=source.commit,
            type=ComponentType.APPLICATION,
            bom_ref=purl.to_string(),
            licenses=licences(agent.manifest.licence),
            purl=purl,
            external_references=_references(ExternalReferenceType.VCS, source.repository),
            properties=_properties({f"path:{path}": "" for path in source.paths}),
        )
    ]


def _package(package: Mapping[str, Any], hashes: Mapping[tuple[str, str], Sequence[str]]) -> Component:
    name, version = str(package["name"]), str(package["version"])
    purl = PackageURL("pypi", None, _canonical(name), version)
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=purl.to_string(),
        description=package["summary"],
        licenses=licences(package["licence_expression"], package["licence"], package["classifiers"]),
        purl=purl,
        # Of the archives that the lock lets through; which of them it was is not written down anywhere.
        external_references=[
            ExternalReference(
                type=ExternalReferenceType.DISTRIBUTION,
                url=XsUri(purl.to_string()),
                comment="the archives that the lock file allows",
                hashes=[HASHES.from_composite_str(each) for each in hashes.get((_canonical(name), version), ())],
            )
        ],
        properties=_properties({"record-sha256": package["record_sha256"]}),
    )


def licences(expression: str | None, text: str | None = None, classifiers: Sequence[str] = ()) -> Sequence[License]:
    """What a package says of its licence, in the first of the places where it can; none where it says nothing."""
    for said in (expression, text):
        if said and len(said) <= SHORT and "\n" not in said.strip() and said.strip().upper() != "UNKNOWN":
            return [LICENCES.make_from_string(said.strip())]
    named = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License :: ")]
    if not named and text and len(first := text.strip().splitlines()[0].strip()) <= SHORT:
        named = [first]  # the text of a licence begins with its name
    return [DisjunctiveLicense(name=name) for name in named if name != "OSI Approved"]


def _locked(lock: Path) -> dict[tuple[str, str], list[str]]:
    """By name and version, the hashes that a lock file lets through."""
    found: dict[tuple[str, str], list[str]] = {}
    for line in lock.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if pin := PIN.match(line):
            hashes = [f"{kind}:{value}" for kind, value in HASH.findall(line)]
            found.setdefault((_canonical(pin[1]), pin[2]), []).extend(hashes)
    return found


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _references(kind: ExternalReferenceType, address: str) -> list[ExternalReference]:
    return [ExternalReference(type=kind, url=XsUri(address))]


def _properties(values: Mapping[str, str | None]) -> list[Property]:
    return [Property(name=f"harness:{name}", value=value) for name, value in values.items() if value is not None]
