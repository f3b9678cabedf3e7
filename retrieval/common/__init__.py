"""Errors, console output, ragged arrays and text tables, used everywhere."""
