"""Numbers in, numbers out: scalar loops that carry their state from block to block."""
