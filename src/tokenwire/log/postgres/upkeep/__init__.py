"""What keeps logs in PostgreSQL whole after a failover that lost a part of them."""
