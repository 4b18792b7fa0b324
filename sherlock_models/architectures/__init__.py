"""One file per architecture: its options, trunk, decoder and `build`."""
