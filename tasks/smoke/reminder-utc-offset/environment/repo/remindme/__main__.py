"""The command line."""

import argparse
import sys

from remindme.reminders import Reminder, by_time, due
from remindme.storage import load, save
from remindme.times import BadTime, parse_time, show_time


def main():
    parser = argparse.ArgumentParser(prog="remindme")
    parser.add_argument("--file", required=True)
    commands = parser.add_subparsers(dest="command", required=True)
    adding = commands.add_parser("add")
    adding.add_argument("time")
    adding.add_argument("text")
    commands.add_parser("list")
    commands.add_parser("due").add_argument("now")
    args = parser.parse_args()

    reminders = load(args.file)
    try:
        if args.command == "add":
            save(args.file, [*reminders, Reminder(parse_time(args.time), args.text)])
            return 0
        shown = by_time(reminders) if args.command == "list" else due(reminders, parse_time(args.now))
    except BadTime as error:
        print(f"remindme: {error}", file=sys.stderr)
        return 1
    for reminder in shown:
        print(f"{show_time(reminder.when)}  {reminder.text}")
    return 0


sys.exit(main())
