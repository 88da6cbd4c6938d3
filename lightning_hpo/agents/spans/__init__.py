"""Evidence spans: decoding, calibration and metrics."""
