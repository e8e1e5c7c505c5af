"""The hardware that serves, watched while a load runs: `cpu`, `tesla` (NVIDIA GPUs) and `tegra` (Jetson boards)."""
