"""`harness view`: the explorer, a page on this machine's loopback."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
from typing import Annotated

import typer

from harness.cli.options import Db, RunsDir, places
from harness.errors import MachineError, UserError

LOOPBACK = "127.0.0.1"


def view(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page. 0: any that is free.")] = 8765,
    db: Db = None,
    runs_dir: RunsDir = None,
) -> None:
    """Show sweeps, runs and steps on a page that only this machine can reach. Ctrl-C ends it."""
    import uvicorn

    from harness.store.db import read_store
    from harness.view.app import make_app

    database, folder = places(db, runs_dir)
    if database.exists():
        read_store(database).close()  # brings an older schema up to date; the pages themselves never write
    with contextlib.closing(_listen(port)) as listener:
        chosen = listener.getsockname()[1]
        config = uvicorn.Config(
            make_app(database, folder, chosen),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        # The server raises the signal that ended it once more; a page that was closed is no interrupted sweep.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        print(f"http://{LOOPBACK}:{chosen}/    (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is taken: name another with --port, or --port 0 for any") from error
        if error.errno == errno.EACCES:
            raise UserError(f"port {port} is the system's: name one above 1023 with --port") from error
        raise MachineError(f"the page can't listen on {LOOPBACK}:{port}: {error.strerror}") from error
    return listener
