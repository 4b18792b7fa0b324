"""What the movie loses without a part of the brain."""
