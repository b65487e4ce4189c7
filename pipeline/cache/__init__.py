"""Redis: the only opener of its driver; it may be lost and is rebuilt from Postgres."""
