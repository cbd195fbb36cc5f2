"""What tests share: servers, processes, networks, strategies."""
