-- Rejected messages that were published again: when last, and by whom.
ALTER TABLE rejected
    ADD COLUMN replayed_at timestamptz,
    ADD COLUMN replayed_by text;
CREATE INDEX rejected_place ON rejected (partition, "offset", "index");
