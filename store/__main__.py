"""`python -m store`: what an operator does to the database."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from sqlalchemy.exc import DBAPIError

from store import keys, migrate
from store.errors import StoreError
from store.session import Database
from store.settings import PRIVATE, Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        answer = _migrate() if options.command == "migrate" else _on_keys(options)
    except StoreError as error:
        return _complain(f"{error.code}: {error.message}")
    except DBAPIError as error:
        hint = "is the server up, and was `python -m store migrate` run?"
        return _complain(f"the database refused: {str(error.orig).strip()}\n{hint}")
    lines = [f"{name}: {value}" for name, value in answer.items()]
    sys.stdout.write((json.dumps(answer) if options.json else "\n".join(lines)) + "\n")
    return 0


def _migrate() -> dict[str, str | None]:
    migrate.upgrade(Settings().database_url)
    return {"revision": migrate.newest()}


def _on_keys(options: argparse.Namespace) -> dict[str, str | None]:
    database = Database(Settings().database_url)
    try:
        with database.write() as session:
            if options.command == "revoke-key":
                keys.revoke(session, options.id)
                return {"id": options.id}
            key, secret = keys.create(session, project=options.project, name=options.name)
            return {"id": key.id, "project": key.project, "name": key.name, "secret": secret}
    finally:
        database.dispose()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m store", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("migrate", help="bring the database to the newest schema")
    create = commands.add_parser("create-key", help="make an API key and print its secret once")
    create.add_argument("--name", required=True)
    create.add_argument("--project", default="default")
    commands.add_parser("revoke-key", help="end an API key").add_argument("id")
    for command in commands.choices.values():
        command.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _complain(text: str) -> int:
    sys.stderr.write(text + "\n")
    return 1


if __name__ == "__main__":
    os.umask(PRIVATE)
    sys.exit(main())
