"""Whole EM runs: standard models learned from scratch by every method, from the same starts."""
