"""Alembic's folder; ``schema.py`` runs it. Revisions are numbered in their order and never edited once released."""
