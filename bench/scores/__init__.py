"""Room scores."""
