"""Features of users and items: schema, vocabularies, records and tables to batches."""
