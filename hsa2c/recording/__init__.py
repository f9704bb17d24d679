"""What reached the master and in which order, as a file; repeated serially to the same v."""
