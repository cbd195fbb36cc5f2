"""Objects of agent frameworks as agents: for each a pure reading of its events, and a driver."""
