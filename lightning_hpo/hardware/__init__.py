"""Hardware of this machine: bf16, memory and GPUs."""
