"""The command line. Each command's module imports what it needs when it runs, so that `--help` answers at once."""

from __future__ import annotations

import errno
import io
import sys
from typing import Annotated

import typer

from harness import __version__, owned
from harness.cli import (
    agents,
    calibrate,
    compare,
    db,
    energy,
    export,
    grade,
    import_,
    interrupts,
    loops,
    maintenance,
    models,
    recommend,
    report,
    runs,
    sweep,
    tasks,
    view,
)
from harness.errors import HarnessError
from harness.visible import for_terminal

app = typer.Typer(
    name="harness",
    help="Measure what coding agents on small local language models cost, and what they resolve.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"harness {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


app.command("sweep")(sweep.sweep)
app.add_typer(runs.app, name="runs")
app.add_typer(agents.app, name="agents")
app.add_typer(tasks.app, name="tasks")
app.add_typer(models.app, name="models")
app.command("grade")(grade.grade)
app.command("calibrate")(calibrate.calibrate)
app.command("report")(report.report)
app.command("energy")(energy.energy)
app.command("loops")(loops.loops)
app.command("compare")(compare.compare)
app.command("recommend")(recommend.recommend)
app.command("view")(view.view)
app.command("export")(export.export)
app.command("import")(import_.import_)
app.command("doctor")(maintenance.doctor)
app.command("clean")(maintenance.clean)
app.add_typer(db.app, name="db")


def main() -> None:
    """Entry point. A user's mistake ends with 2, a fault of the machine with 1, each with one sentence."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that can't show a letter loses that letter, no more
    try:
        with interrupts.listening(), owned.temporary_folder():
            app()
    except HarnessError as error:
        print(f"harness: {for_terminal(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as end:
        # Typer makes an exit of an interruption, and says nothing.
        if isinstance(end, SystemExit) and not interrupts.heard:
            raise
        print("harness: interrupted; `harness sweep --resume` continues a sweep that had begun", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        # Docker may go away at any moment, and its library has no end of exceptions for that.
        if type(error).__module__.partition(".")[0] in ("docker", "requests", "urllib3"):
            print(f"harness: Docker failed: {error}", file=sys.stderr)
        elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            print(f"harness: nothing can be written: {error}", file=sys.stderr)
        elif type(error).__module__ == "sqlite3":
            print(f"harness: the database can't be read or written ({error}): see `harness doctor`", file=sys.stderr)
        else:
            raise
        sys.exit(1)
