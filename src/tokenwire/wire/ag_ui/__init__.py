"""AG-UI events, and TanStack AI's dialect of them."""
