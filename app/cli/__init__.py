"""The `shotline` command. Nothing here imports torch before it is needed."""
