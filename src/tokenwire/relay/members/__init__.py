"""Who belongs to a conversation: members and their roles, invitations, and open readers."""
