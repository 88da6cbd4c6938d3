"""Registered models: register, verify, promote."""
