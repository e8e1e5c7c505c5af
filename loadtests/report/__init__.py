"""A load test as a page: what was measured as JSON, and the plots, tables and text made of it."""
