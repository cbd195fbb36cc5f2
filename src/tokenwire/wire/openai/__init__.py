"""OpenAI's wires, outwards."""
