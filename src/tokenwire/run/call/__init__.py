"""One call of a model: an attempt, its reads, its clocks, and the next attempt."""
