"""Configuration: sections, and how files and command lines become them."""
