"""The two towers and their losses, in torch."""
