"""What tasks share whose methods learn by mini-batches and are judged on data they never saw."""
