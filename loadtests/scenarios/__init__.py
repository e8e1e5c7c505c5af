"""MLPerf's LoadGen driving the service over HTTP and over gRPC: its four scenarios, its schedule, its verdict."""
