"""Brings a database to the schema of this code, or says why not."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

MIGRATIONS = Path(__file__).parent / "migrations"


class UnknownSchema(Exception):
    """The database has a revision that this code does not know: a newer cvpnd made it."""

    def __init__(self, revision: str, newest: str) -> None:
        super().__init__(f"schema {revision} is newer than this cvpnd, which knows schemas up to {newest}")


def migrate(connection: Connection) -> str:
    """Run the missing migrations in the caller's transaction, which must be a writing one: of two daemons that start at
    once the second waits, and then finds nothing to do. Returns the revision. Raises ``UnknownSchema``."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    newest, current = str(scripts.get_current_head()), revision_of(connection)
    if current == newest:
        return newest
    known = {script.revision for script in scripts.walk_revisions()}
    if current is not None and current not in known:
        raise UnknownSchema(current, newest)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return newest


def revision_of(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
