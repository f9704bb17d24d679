"""Studies: many trainings, each a trial of other settings, and what is best among them."""
