"""HTTP to providers: a client, and the connection that it reads from."""
