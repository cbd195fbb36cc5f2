"""LangGraph's wire: runs and threads as the clients of its server read them."""
