"""The command line's config: parsing, error messages, class paths."""
