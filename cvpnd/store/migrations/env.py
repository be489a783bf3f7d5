"""Alembic's entry: migrate over the connection, and in the transaction, that ``store.schema`` opened."""

from alembic import context

from cvpnd.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # also on SQLite: a migration that fails half-way leaves nothing
)
with context.begin_transaction():
    context.run_migrations()
