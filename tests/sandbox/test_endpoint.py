"""Which Docker engine is meant: asked of contexts that the docker command made."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.sandbox.endpoint import DEFAULT_URL, find

pytestmark = pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command to make contexts")


def docker(folder: Path, *words: str) -> str:
    environment = {"DOCKER_CONFIG": str(folder), "PATH": "/usr/bin:/bin:/usr/local/bin"}
    return subprocess.run(["docker", *words], env=environment, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Docker's settings, with two contexts and none chosen."""
    docker(tmp_path, "context", "create", "lab", "--docker", "host=tcp://lab.invalid:2375")
    docker(tmp_path, "context", "create", "far", "--docker", "host=ssh://me@far.invalid")
    return tmp_path


def test_the_host_goes_before_the_context_and_that_before_the_one_that_was_chosen(folder: Path) -> None:
    given = {"DOCKER_CONFIG": str(folder)}
    assert find(given).url == DEFAULT_URL
    docker(folder, "context", "use", "far")
    assert find(given | {"DOCKER_CONTEXT": "lab"}).url == "tcp://lab.invalid:2375"
    assert find(given | {"DOCKER_CONTEXT": "default"}).url == DEFAULT_URL
    assert find(given | {"DOCKER_CONTEXT": "none", "DOCKER_HOST": "unix:///x.sock"}).url == "unix:///x.sock"
    docker(folder, "context", "use", "lab")
    chosen = find(given)
    assert (chosen.url, chosen.tls, "'lab'" in chosen.said_by) == ("tcp://lab.invalid:2375", None, True)


def test_what_a_context_proves_itself_with_comes_along(folder: Path, tmp_path: Path) -> None:
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=safe.invalid"]
    subprocess.run([*made, "-keyout", "key.pem", "-out", "cert.pem"], cwd=tmp_path, check=True, capture_output=True)
    shutil.copy(tmp_path / "cert.pem", tmp_path / "ca.pem")
    files = ",".join(f"{name}={tmp_path}/{name}.pem" for name in ("ca", "cert", "key"))
    host = "host=tcp://safe.invalid:2376"
    docker(folder, "context", "create", "safe", "--docker", f"{host},{files}")
    docker(folder, "context", "create", "one-way", "--docker", f"{host},ca={tmp_path}/ca.pem")
    docker(folder, "context", "create", "blind", "--docker", f"{host},skip-tls-verify=true")
    found = {
        name: find({"DOCKER_CONFIG": str(folder), "DOCKER_CONTEXT": name}).tls for name in ("safe", "one-way", "blind")
    }
    assert found["safe"]
    kept = [Path(file).read_text() for file in (*found["safe"].cert, found["safe"].ca_cert)]
    assert kept == [(tmp_path / f"{name}.pem").read_text() for name in ("cert", "key", "ca")]
    assert found["safe"].verify
    assert found["one-way"]
    assert (found["one-way"].cert, found["one-way"].verify) == (None, True)
    assert found["blind"]
    assert found["blind"].verify is False


def test_what_cannot_be_meant_is_refused_in_a_sentence(folder: Path) -> None:
    given = {"DOCKER_CONFIG": str(folder)}
    with pytest.raises(UserError, match=r"no Docker context 'la', which DOCKER_CONTEXT names; .*lab"):
        find(given | {"DOCKER_CONTEXT": "la"})
    with pytest.raises(UserError, match=r"not reached by ssh here: forward its socket .*me@far.invalid"):
        find(given | {"DOCKER_CONTEXT": "far"})
    [file] = [path for path in folder.glob("contexts/meta/*/meta.json") if '"lab"' in path.read_text()]
    file.write_text(json.dumps({"Name": "lab", "Endpoints": {}}))
    with pytest.raises(UserError, match=r"'lab'.* has no Docker engine in it"):
        find(given | {"DOCKER_CONTEXT": "lab"})
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json, which names Docker's context, can't be read"):
        find(given)
