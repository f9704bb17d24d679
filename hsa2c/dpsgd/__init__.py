"""DPSGD, the generic core (Mohamad et al. 2022): Algorithm 1 in `master`, Algorithm 2 in `worker`."""
