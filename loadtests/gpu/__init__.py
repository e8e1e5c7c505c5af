"""What a GPU can do for a model, and how much of it is served."""
