"""What hostile people, servers and files send, by the edge that it comes in at."""
