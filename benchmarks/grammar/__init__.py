"""The grammar task: parsers learned without trees, by every method, from the same starts."""
