"""Neural collapse: the frame, how far features are from it, and how they are drawn to it."""
