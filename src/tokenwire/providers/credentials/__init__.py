"""Keys of providers that change while the process runs: from files, functions and clouds."""
