"""Everything that works without Faust and without the web."""
