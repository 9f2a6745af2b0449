"""The gateway: HTTP in, decisions out."""
