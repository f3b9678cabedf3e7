"""The artifact folder: read, written, checked."""
