"""`python -m store`: what an operator does to the database."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from store import keys, migrate
from store.errors import StoreError
from store.session import Database
from store.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    settings = Settings()
    if options.command == "migrate":
        migrate.upgrade(settings.database_url)
        return _say({"revision": migrate.newest()}, as_json=options.json)
    database = Database(settings.database_url)
    try:
        return _on_keys(database, options)
    except StoreError as error:
        sys.stderr.write(f"{error.code}: {error.message}\n")
        return 1
    finally:
        database.dispose()


def _on_keys(database: Database, options: argparse.Namespace) -> int:
    with database.write() as session:
        if options.command == "revoke-key":
            keys.revoke(session, options.id)
            answer = {"id": options.id}
        else:
            key, secret = keys.create(session, project=options.project, name=options.name)
            answer = {"id": key.id, "project": key.project, "name": key.name, "secret": secret}
    return _say(answer, as_json=options.json)


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


def _say(answer: dict[str, str | None], *, as_json: bool) -> int:
    lines = [f"{name}: {value}" for name, value in answer.items()]
    sys.stdout.write((json.dumps(answer) if as_json else "\n".join(lines)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
