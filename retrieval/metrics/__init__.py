"""Ranking and rating metrics."""
