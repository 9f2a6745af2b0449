"""What a tuned model has to beat, on the same cached features."""
