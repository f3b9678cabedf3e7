"""Training: tables to two towers, in Lightning."""
