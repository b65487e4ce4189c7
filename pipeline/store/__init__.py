"""Postgres: the only opener of asyncpg; SQL lives in .sql files."""
