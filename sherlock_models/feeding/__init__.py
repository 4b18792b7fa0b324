"""From stores to batches: what a model sees, in which order, from where."""
