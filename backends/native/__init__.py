"""The native backend: our own kernels on the CPU, a program of operations made once and run by one call a step."""
