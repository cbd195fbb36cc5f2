"""One reader's stream between the log and the socket."""
