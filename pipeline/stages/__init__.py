"""The chain: one pure stage a file, no clock, no I/O, no randomness, no globals."""
