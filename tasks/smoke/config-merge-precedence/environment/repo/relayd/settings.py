"""The settings that hold, out of all layers."""

from pathlib import Path

from relayd.sources import from_command_line, from_environment, from_ini

DEFAULTS_FILE = Path(__file__).resolve().parent.parent / "etc" / "defaults.ini"


def overlay(settings, layer):
    """Put a layer over the settings below it."""
    result = dict(settings)
    for name, value in layer.items():
        if value:
            result[name] = value
    return result


def resolve(argv, environ):
    """{name: value} for a command line (without the program's name) and an environment."""
    site_file, flags = from_command_line(argv)
    settings = from_ini(DEFAULTS_FILE)
    if site_file is not None:
        settings = overlay(settings, from_ini(site_file))
    settings = overlay(settings, flags)
    return overlay(settings, from_environment(environ))
