"""EASE: the closed-form item-to-item model, and what else is solved in closed form."""
