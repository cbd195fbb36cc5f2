"""OpenTelemetry's conventions for generative AI: their names, and their form of messages."""
