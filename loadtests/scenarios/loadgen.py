"""MLPerf's LoadGen, or why it is not there."""

try:
    import mlperf_loadgen as loadgen
except ModuleNotFoundError:
    raise SystemExit(
        "error: LoadGen is not installed: its package mlcommons-loadgen exists for Linux on x86-64, Python 3.11 to 3.13"
    ) from None

__all__ = ["loadgen"]
