"""Facts about the CPU and the GPUs of this machine."""
