"""This process and its machine: CPUs, memory, signals, stderr, and tables on a local disk."""
