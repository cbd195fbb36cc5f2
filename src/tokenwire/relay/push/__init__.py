"""Push notifications of A2A: what a client asked to hear of one task, and its delivery."""
