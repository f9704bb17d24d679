"""Command lines."""

#: The application of commands that are told no other. By this name alone does hsa2c know one.
APPLICATION = "hsa2c.agents.application"
