"""Replay without Faust: the same chain in a for-loop over files or a stretch of the topic."""
