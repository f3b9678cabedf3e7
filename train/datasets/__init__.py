"""Public and synthetic datasets as dataset folders."""
