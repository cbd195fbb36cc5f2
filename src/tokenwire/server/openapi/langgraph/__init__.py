"""The routes of LangGraph's clients, described."""
