"""The GPU operators of the torch backend. Each file will hold one Triton kernel; today it holds its plain torch twin,
which runs on every device and stays as the kernel's oracle."""
