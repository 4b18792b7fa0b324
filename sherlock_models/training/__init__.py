"""Steps, losses, ranks and checkpoints."""
