"""Makes attempts, each in a process of its own, and prints a line of JSON for each: whether it got what it was after,
and what came back. In a sandbox, or in a container without its protection.

    python3 attempts.py kernel network      the modules beside this file; facts.json, if it is there, tells them more
"""

import errno
import importlib
import json
import os
import pathlib
import signal
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
LONGEST_S = 120

FACTS = json.loads((HERE / "facts.json").read_text()) if (HERE / "facts.json").exists() else {}
ATTEMPTS = {}


class Refused(Exception):
    """An attempt came back empty-handed."""


def attempt(function):
    """Mark an attempt: returns what it got, as text; raises OSError or Refused when it got nothing."""
    ATTEMPTS[function.__name__] = function
    return function


def let_through(error):
    """For calls that can't succeed as they are made, and do no harm: any error but "not permitted" is of somebody who
    would have done it."""
    if error.errno in (errno.EPERM, errno.EACCES):
        raise error
    return f"let through: {error.strerror}"


def make(function):
    """Whether it got anything, and what came back."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.alarm(LONGEST_S)
        try:
            said = (True, str(function()))
        except Refused as refused:
            said = (False, str(refused))
        except OSError as error:
            said = (False, f"{type(error).__name__}: {error}")
        except BaseException as error:  # a fault of the attempt itself shows nothing
            said = (None, f"{type(error).__name__}: {error}")
        os.write(writing, json.dumps(said).encode()[:60_000])
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return json.loads(said) if said else (None, f"it ended with {status} and said nothing")


def main(modules):
    sys.modules["attempts"] = sys.modules["__main__"]
    sys.path.insert(0, str(HERE))
    for module in modules:
        importlib.import_module(module)
    for name, function in ATTEMPTS.items():
        if function.__module__ not in modules:  # one that another imports
            continue
        began = time.monotonic()
        got, came = make(function)
        took_s = round(time.monotonic() - began, 3)
        print(json.dumps({"attempt": name, "got": got, "came": came, "took_s": took_s}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
