"""Google's wires: Gemini and Gemini Interactions."""
