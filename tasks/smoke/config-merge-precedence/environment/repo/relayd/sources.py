"""The layers that settings come from. Each gives {name: value} of what it has."""

import argparse
import configparser

from relayd.fields import FIELDS, typed

PREFIX = "RELAYD_"


def from_ini(path):
    parser = configparser.ConfigParser(interpolation=None)
    with open(path, encoding="utf-8") as file:
        parser.read_file(file)
    return typed(dict(parser["relayd"]))


def from_environment(environ):
    found = {name: environ[PREFIX + name.upper()] for name in FIELDS if PREFIX + name.upper() in environ}
    return typed(found)


def from_command_line(argv):
    """(path of the site's file or None, {name: value}); a flag that was not given has the value None."""
    parser = argparse.ArgumentParser(prog="relayd")
    parser.add_argument("--config")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--tls", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--retries", type=int)
    parser.add_argument("--banner")
    flags = vars(parser.parse_args(argv))
    return flags.pop("config"), flags
