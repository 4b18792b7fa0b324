"""The movie as a brain tells it."""
