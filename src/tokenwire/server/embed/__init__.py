"""The server inside of an application: single responses, runs on a log, and all routes mounted."""
