"""Alembic's migrations: each changes the tables from one version to the next."""
