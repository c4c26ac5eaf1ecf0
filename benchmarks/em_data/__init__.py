"""The EM suite's tasks that are learned from data, each a run of its own."""
