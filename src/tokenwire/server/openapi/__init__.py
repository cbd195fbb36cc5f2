"""What the server's routes take and give, as an OpenAPI document made from the code's own types."""
