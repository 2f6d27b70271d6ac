"""Backup and restore of everything that is not weights: keys, usage, models and their names, the configuration.

A backup holds rows, not a database's files: what SQLite gave, PostgreSQL takes, and the other way round.
"""
