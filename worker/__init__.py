"""The worker: takes tunings from the queue and runs each in a process of its own."""
