"""The routes of producers outside of the server."""
