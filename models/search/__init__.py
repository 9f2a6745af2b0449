"""The search for a better recipe: trials by cross-validation, and a choice that is no noise."""
