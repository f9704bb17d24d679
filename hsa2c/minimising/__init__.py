"""The application behind `hsa2c.minimise`: any torch module and a stochastic loss, by name."""
