"""Tokens for browsers: what reaches one run or one conversation of their issuer, no more."""
