"""The database: its schema, how transactions are made, and the few reads that are made faster than the others."""
