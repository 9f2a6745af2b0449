"""One file per prompt learner."""
