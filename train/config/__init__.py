"""The config file: its options, its defaults, reading and writing it."""
