"""A study on one HTML page, and as pictures."""
