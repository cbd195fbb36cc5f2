"""What every decoder shares: payloads, parts, slots of tool calls, the end of a step."""
