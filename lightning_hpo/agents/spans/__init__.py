"""Spans: candidates, decoding, metrics."""
