"""The preflight: finds what wastes a night before a run is started. `hsa2c.doctor.examination` puts it together."""
