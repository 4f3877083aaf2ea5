"""What runtimes say and are told: requests, network configurations, results, and the frames of the launcher."""
