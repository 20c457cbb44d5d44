"""Speed and memory on this machine, against its limits and against PyTorch."""
