"""Are there enough images? Learning curves from sub-samples of what is there, extrapolated."""
