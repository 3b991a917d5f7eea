"""Room splits."""
