"""What a run found, on one page and in one picture."""
