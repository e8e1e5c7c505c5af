"""One request after another to a service, in each way that it can be asked."""
