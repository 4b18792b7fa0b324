"""One file per architecture: its options, trunk, decoder, `build` and `ARCHITECTURE`."""
