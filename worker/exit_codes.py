"""How the child tells its supervisor how it ended; any other code is a crash."""

from typing import Final

# The row says how it ended.
DONE: Final = 0
# The row belongs to someone else by now, or the tuning was cancelled: nothing to do.
LEASE_LOST: Final = 71
# Told to stop, or the database stayed away: the tuning is to be tried again.
HANDED_BACK: Final = 75  # EX_TEMPFAIL of sysexits.h
