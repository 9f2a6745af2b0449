"""Programs that show how Shotline is used."""
