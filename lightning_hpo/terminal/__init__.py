"""What appears on the terminal."""
