"""The routes of LangGraph's server."""
