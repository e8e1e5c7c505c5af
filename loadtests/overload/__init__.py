"""What becomes of a service that is asked for several times what it can do, and how soon it is itself again."""
