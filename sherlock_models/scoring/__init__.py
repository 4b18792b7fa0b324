"""Whether a run is to be believed: scores on held-out TRs, beside baselines and ceiling."""
