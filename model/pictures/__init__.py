"""The pictures of a run, one a file of this package; each draws on the figure that it is given."""
