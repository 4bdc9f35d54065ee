"""A Docker engine with process numbers of its own, as another machine's has, reached by TLS through a context."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import Harness
from own_docker import OwnDocker, own_docker
from small_sweep import words
from tunnel import tunnel

from harness.sandbox.daemon import KIND, connect

pytestmark = [pytest.mark.docker, pytest.mark.network]

TASK = "basket-shared-default"


def fill(far: OwnDocker, here: Harness) -> None:
    """With the images and the bundle of a sweep that was made here."""
    client = connect()
    [run] = here.rows("SELECT bundle, image_digest FROM runs WHERE agent = 'caller'")
    tags = [tag for image in client.images.list() for tag in image.tags]
    far.take(
        "debian:bookworm-slim", *client.images.get(run["image_digest"]).tags, *(tag for tag in tags if TASK in tag)
    )
    for volume in client.volumes.list(filters={"label": KIND}):
        if run["bundle"] in volume.name:
            far.take_volume(volume.name)


def prove(folder: Path) -> None:
    """One certificate for both ends."""
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=far"]
    whose = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*made, *whose], cwd=folder, check=True, capture_output=True)
    shutil.copy(folder / "cert.pem", folder / "ca.pem")


def choose_context(folder: Path, port: int) -> dict[str, str]:
    """As a user does; returns where that is written down."""
    proof = ",".join(f"{name}={folder}/{name}.pem" for name in ("ca", "cert", "key"))
    where = {"DOCKER_CONFIG": str(folder)}
    for command in (["create", "far", "--docker", f"host=tcp://127.0.0.1:{port},{proof}"], ["use", "far"]):
        subprocess.run(["docker", "context", *command], env=os.environ | where, check=True, capture_output=True)
    return where


def test_on_another_machines_docker_a_sweep_reads_nothing_here_by_its_numbers(
    harness: Harness, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sweep = words(harness, "--retries", "0")
    done = harness(*sweep)
    assert done.code == 0, done.err
    settings: Path = tmp_path_factory.mktemp("docker")
    prove(settings)
    with own_docker(apart=True, options=["--add-runtime", f"other={shutil.which('runc')}"]) as far:
        fill(far, harness)
        with tunnel(far.address.removeprefix("unix://"), settings) as port:
            there = Harness(harness.folder, {**harness.env, **choose_context(settings, port)}, harness.started)
            done = there(*sweep, "--runtime", "other")
            doctor = there("doctor", "--json")
    assert done.code == 0, done.out + done.err
    assert f"door: relay, since Docker is on another machine: it is reached by network (https://127.0.0.1:{port})" in (
        done.out
    )
    here, elsewhere = (
        {row["agent"]: row for row in harness.rows("SELECT * FROM runs WHERE sweep_id = ?", each["sweep_id"])}
        for each in harness.rows("SELECT sweep_id FROM sweeps ORDER BY created_at")
    )
    assert [row["verdict"] for row in elsewhere.values()] == [here[name]["verdict"] for name in elsewhere]
    assert (here["caller"]["door"], elsewhere["caller"]["door"]) == ("socket", "relay")
    assert (here["caller"]["runtime"], elsewhere["caller"]["runtime"]) == ("runc", "other")
    assert elsewhere["caller"]["calls"] == 3
    assert here["oracle"]["machine_id"] != elsewhere["oracle"]["machine_id"]
    [facts] = harness.rows("SELECT facts FROM machines WHERE machine_id = ?", elsewhere["oracle"]["machine_id"])
    assert json.loads(facts["facts"])["docker_elsewhere"]["cores"] == os.cpu_count()
    for name in ("cpu_s", "sandbox_peak_anon_bytes", "sandbox_peak_cgroup_bytes"):
        assert here["caller"][name]
        assert elsewhere["caller"][name] is None
    flags = json.loads(elsewhere["caller"]["flags"])
    assert any(flag.startswith("sandbox_unseen: it is reached by network") for flag in flags)
    covered = "SELECT coverage FROM energy WHERE run_id = ? AND component = 'total' AND layer = 'gross'"
    assert {row["coverage"].partition(":")[0] for row in harness.rows(covered, elsewhere["caller"]["run_id"])} == {
        "engine_host"
    }
    assert "no_energy: neither the sandbox nor an engine is on this machine" in elsewhere["oracle"]["flags"]
    found = {check["check"]: check["found"] for check in json.loads(doctor.out)}
    assert "Docker's folder can't be seen from here (it is reached by network" in found["space"]
