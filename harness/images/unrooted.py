"""The image of a sandbox whose user is not root: its work directory and a home belong to that user.

Derived once, as a layer over the one in which patches are graded, so that a run's setup has nothing to do and grading
is the same whoever the agent was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json

import docker
from docker.errors import ImageNotFound

from harness import paths
from harness.errors import MachineError
from harness.images.bases import Say
from harness.images.derived import derive
from harness.images.prepare import READY, Prepared
from harness.sandbox.daemon import DockerFault

UID = 10_001  # nobody's on a usual host: where user namespaces are not remapped it is the same number there
HOME = "/home/agent"
OWN = """
mkdir -p "$3" && chown -R -h "$2:$2" "$1" "$3" || exit
grep -q "^[^:]*:[^:]*:$2:" /etc/passwd || echo "agent:x:$2:$2::$3:/bin/sh" >> /etc/passwd
grep -q "^[^:]*:[^:]*:$2:" /etc/group || echo "agent:x:$2:" >> /etc/group
"""
LIMIT_S = 600


def unrooted(client: docker.DockerClient, prepared: Prepared, name: str, say: Say) -> Prepared:
    """The same task with a sandbox whose work directory belongs to UID. `name` is the task's, for people.

    Raises UserError when the image lacks what that takes, MachineError when Docker fails.
    """
    key = hashlib.sha256(json.dumps([prepared.image, prepared.workdir, UID, HOME, OWN]).encode()).hexdigest()[:20]
    tag = f"{READY}:{key}"
    try:
        with paths.lock(f"prepare-{key}"):
            try:
                image = client.images.get(tag).id
            except ImageNotFound:
                say(f"{name}: giving its work directory to a user who is not root")
                image = derive(
                    client,
                    prepared.image,
                    ["sh", "-c", OWN, "sh", prepared.workdir, str(UID), HOME],
                    tag,
                    limit_s=LIMIT_S,
                    failed=lambda status: (
                        f"the image of {name} has no working sh, mkdir and chown (exit code {status}): "
                        "use --sandbox-user root for it"
                    ),
                ).id
    except DockerFault as error:
        raise MachineError(
            f"the image of {name} can't be prepared: {getattr(error, 'explanation', None) or error}"
        ) from error
    return dataclasses.replace(prepared, sandbox_image=str(image))
