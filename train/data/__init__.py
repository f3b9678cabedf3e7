"""Tables to training batches."""
