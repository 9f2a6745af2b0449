"""Ways from a few labelled images to a classifier, behind one protocol; one file each."""
