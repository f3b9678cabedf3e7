"""The training loop: fit, checkpoint, refit, and what follows the epochs."""
