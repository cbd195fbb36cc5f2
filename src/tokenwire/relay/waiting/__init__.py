"""What waits for a person: an index of open approvals, the inbox read from it, and links."""
