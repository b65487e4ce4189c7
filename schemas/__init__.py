"""What crosses a boundary: tick contract, blocks, topics, codec; imports nothing of ours."""
