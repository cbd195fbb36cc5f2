"""What is done to logs in Redis now and then: leases, times to live, a look for those lost."""
