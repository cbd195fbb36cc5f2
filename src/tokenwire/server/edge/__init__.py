"""What every request passes: protocol, guard, quotas, bodies, responses."""
