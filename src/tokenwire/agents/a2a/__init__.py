"""Remote agents of the Agent2Agent protocol (A2A 1.0) as agents of ours."""
