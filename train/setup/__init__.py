"""First looks at tables: `init` and `inspect`."""
