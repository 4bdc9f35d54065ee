"""What an image has to be for an agent's bundle to run in it."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile

import pytest

from harness.errors import UserError
from harness.images import prepare
from harness.sandbox.daemon import connect


@pytest.mark.docker
def test_an_image_for_another_architecture_is_refused_by_name() -> None:
    client = connect()
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w").close()
    made = subprocess.run(
        ["docker", "import", "-"], input=empty.getvalue(), check=True, capture_output=True, text=False
    )
    image = made.stdout.decode().strip()
    saved = io.BytesIO(b"".join(client.images.get(image).save()))
    changed = io.BytesIO()
    # As `docker load` would bring it from another machine.
    with tarfile.open(fileobj=saved) as old, tarfile.open(fileobj=changed, mode="w") as new:
        [manifest] = json.load(old.extractfile("manifest.json"))  # type: ignore[arg-type]
        for member in old:
            content = old.extractfile(member).read() if member.isfile() else b""  # type: ignore[union-attr]
            if member.name == manifest["Config"]:
                content = json.dumps(json.loads(content) | {"architecture": "s390x"}).encode()
                member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    [loaded] = client.images.load(changed.getvalue())
    try:
        with pytest.raises(UserError, match=r"the image of smoke/mine is for s390x and Docker here is \w+"):
            prepare.prepare(client, loaded.id, "smoke/mine", "/testbed")
    finally:
        client.images.remove(loaded.id, force=True)
        client.images.remove(image, force=True)
