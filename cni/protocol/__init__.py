"""What runtimes send and get: requests, network configurations, results, and the frames of the launcher."""
