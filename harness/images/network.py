"""What a container that builds something needs to know of this host's network: proxies, indexes, certificates."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

HOST_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
PASSED_ON = (
    "ALL_PROXY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_PYTHON_INSTALL_MIRROR",
)


def host_certificates() -> Path | None:
    """What this host trusts, for networks that re-sign TLS. None: uv's own list has to do."""
    candidates = (os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile, *HOST_CERTIFICATES)
    return next((Path(file) for file in candidates if file and Path(file).is_file()), None)


def build_environment(certificates: str | None) -> dict[str, str]:
    """Variables for uv and what else downloads in the container. `certificates` is where the host's lie there."""
    environment = {}
    for name in PASSED_ON:
        for spelling in (name, name.lower()):
            if value := os.environ.get(spelling):
                environment[spelling] = value
    # pip's settings are what most people have; uv does not read them.
    if not {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & environment.keys() and (index := os.environ.get("PIP_INDEX_URL")):
        environment["UV_DEFAULT_INDEX"] = index
    if "UV_EXTRA_INDEX_URL" not in environment and (extra := os.environ.get("PIP_EXTRA_INDEX_URL")):
        environment["UV_EXTRA_INDEX_URL"] = extra
    if certificates:
        # The second and third are one setting of uv, newer and older name.
        environment |= {
            "SSL_CERT_FILE": certificates,
            "UV_SYSTEM_CERTS": "1",
            "UV_NATIVE_TLS": "1",
        }
    return environment


def build_network(environment: Mapping[str, str]) -> str:
    """The network of such a container: a proxy or an index on the host's loopback can't be reached from the bridge."""
    addresses = [value for name, value in environment.items() if name.upper() != "NO_PROXY"]
    loopback = any(
        host in address for address in addresses for host in ("//127.", "//localhost", "@localhost", "@127.")
    )
    return "host" if loopback else "bridge"
