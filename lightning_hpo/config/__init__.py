"""The config of every command: one LightningCLI, its flags and its error messages."""
