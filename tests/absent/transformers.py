"""What an installation of Shotline has not; open_clip imports it where it is, which takes long.

It is in the tests' environment for the starter backbone's recipe alone. Processes that tests start
find this in its place, and are as they are in a factory.
"""

raise ImportError("Shotline is installed without transformers.")
