"""Load tests: real images over the network, at a service started for the purpose or one that is running."""
