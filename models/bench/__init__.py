"""The bench: methods against each other on labelled photographs, as the field compares them."""
