"""Looking after what is kept: backup, restore, verify, and migrations that can be undone."""
