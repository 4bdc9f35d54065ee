"""The command line."""

import argparse
import sys

from contacts import book
from contacts.table import BadTable, from_csv, to_csv


def main(argv=None):
    parser = argparse.ArgumentParser(prog="contacts")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="print names and addresses")
    listing.add_argument("book")
    export = commands.add_parser("export", help="write a CSV file")
    export.add_argument("book")
    export.add_argument("csv")
    importing = commands.add_parser("import", help="make a book from a CSV file")
    importing.add_argument("csv")
    importing.add_argument("book")
    args = parser.parse_args(argv)

    if args.command == "list":
        for person in book.load(args.book):
            print(f"{person['name']} <{person['email']}>")
    elif args.command == "export":
        with open(args.csv, "w", encoding="utf-8", newline="") as file:
            file.write(to_csv(book.load(args.book)))
    else:
        with open(args.csv, encoding="utf-8", newline="") as file:
            text = file.read()
        try:
            book.save(args.book, from_csv(text))
        except BadTable as error:
            print(f"contacts: {args.csv}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
