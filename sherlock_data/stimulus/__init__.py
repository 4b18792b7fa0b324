"""What was on the screen and in the loudspeakers, on the clock of the scan: one row per TR."""
