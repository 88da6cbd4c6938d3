"""Report of a study: one HTML page, its figures as PNG files, and the status of a study on the command line."""
