"""A conversation that lives on the server: its turns, what a model is given of them, its queue."""
