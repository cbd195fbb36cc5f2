"""OpenAI's wires: Chat Completions, Responses, completions."""
