"""The bench's pictures; one file per kind."""
