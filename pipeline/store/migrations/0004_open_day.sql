-- An open day keeps one index, on event time: each costs a seventh of what a row costs. The index
-- on offsets, for parity, is made when the day is over (upkeep).
DROP INDEX ticks_offset;
DROP INDEX bars_offset;
DROP INDEX features_offset;
DROP INDEX regimes_offset;
DROP INDEX predictions_offset;
DROP INDEX signals_offset;
