-- How it stands with each series that a watcher of drift looks at, as of the state beside it.
ALTER TABLE drift_states ADD COLUMN series jsonb NOT NULL DEFAULT '[]';
