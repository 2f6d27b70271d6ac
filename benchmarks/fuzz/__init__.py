"""Fuzzing of a whole server: every route by its schema, and bytes that are nearly HTTP."""
