"""Hardware of this machine: bf16, memory, CPUs and GPUs."""
