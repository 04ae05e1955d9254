"""Input from hostile people, servers and files, by the interface that receives it."""
