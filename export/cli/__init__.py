"""The commands `export`, `run` and `demo`."""
