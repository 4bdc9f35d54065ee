"""Routes of the explorer, and what every answer has in common: who may ask, what a page may load, calm errors."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from harness.analysis.figures import MARKS, marked
from harness.analysis.names import label
from harness.analysis.summary import percent, shown
from harness.errors import UserError
from harness.store.db import look_into
from harness.view import artefact, run, sweep, sweeps
from harness.view.background import Kept
from harness.view.reading import Reading, Unknown
from harness.view.text import finalized, shortened
from harness.view.words import OUTCOMES, duration, moment, size

HERE = Path(__file__).parent
NAMES = ("127.0.0.1", "localhost", "[::1]")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

Page = Callable[[Reading, Request], Mapping[str, Any]]


def make_app(database: Path, runs_dir: Path, port: int) -> Starlette:
    """The pages of one store, for a server at this port of the loopback."""
    kept, templates = Kept(), _templates()

    def reading(answer: Callable[[Reading, Request], Response]) -> Callable[[Request], Response]:
        # Not a coroutine, so Starlette runs it in a thread.
        def endpoint(request: Request) -> Response:
            try:
                with contextlib.closing(look_into(database)) as db:
                    return answer(Reading(db, database, runs_dir, kept), request)
            except Unknown as error:
                return _notice(templates, 404, "There is no such page", str(error))
            except UserError as error:
                return _notice(templates, 503, "There is nothing to show yet", str(error))
            except sqlite3.Error as error:
                return _notice(templates, 503, "The database can't be read just now", f"{database}: {error}")

        return endpoint

    def html(template: str, page: Page) -> Callable[[Request], Response]:
        def answer(store: Reading, request: Request) -> Response:
            return _html(templates, template, page(store, request))

        return reading(answer)

    def json(value: Callable[[Reading, Request], Any]) -> Callable[[Request], Response]:
        return reading(lambda store, request: JSONResponse(value(store, request)))

    def missing(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        return _notice(templates, status, "There is no such page", f"nothing is at {request.url.path}")

    return Starlette(
        routes=[
            Route("/", html("sweeps.html.j2", sweeps.page)),
            Route("/version", json(sweeps.version)),
            Route("/sweeps/{sweep_id}", html("sweep.html.j2", sweep.page)),
            Route("/sweeps/{sweep_id}/version", json(sweep.version)),
            Route("/runs/{run_id}", html("run.html.j2", run.page)),
            Route("/runs/{run_id}/artefacts/{name:path}", reading(artefact.download)),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        middleware=[Middleware(Gate, port=port)],
        exception_handlers={404: missing, 405: missing},
    )


class Gate:
    """Answers nobody who asks by another name than the loopback's, which is what a page on the internet would have to
    do (DNS rebinding), and nobody who wants more than to read. Says what a page may load and who may frame it."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._hosts = {f"{name}:{port}" for name in NAMES} | (set(NAMES) if port == 80 else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = None
        if Headers(scope=scope).get("host", "").lower() not in self._hosts:
            refusal = PlainTextResponse(f"ask for this page as http://{NAMES[0]} with its port\n", 400)
        elif scope["method"] not in ("GET", "HEAD"):
            refusal = PlainTextResponse("this page can only be read\n", 405, headers={"Allow": "GET, HEAD"})
        await (refusal or self._app)(scope, receive, send_with_headers)


def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalized,
    )
    made.filters.update(
        shown=shown, percent=percent, duration=duration, moment=moment, size=size, shortened=shortened
    )  # fmt: skip
    made.globals.update(label=label, marked=marked, marks=MARKS, outcomes=OUTCOMES)
    for name in made.list_templates():
        made.get_template(name)  # compiled here, not while somebody waits for the first page
    return made


def _html(templates: Environment, name: str, context: Mapping[str, Any], status: int = 200) -> Response:
    return HTMLResponse(templates.get_template(name).render(**context).encode("utf-8", "replace"), status)


def _notice(templates: Environment, status: int, title: str, sentence: str) -> Response:
    return _html(templates, "notice.html.j2", {"title": title, "sentence": sentence}, status)
