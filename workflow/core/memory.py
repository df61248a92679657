"""What a process keeps for its whole life, kept away from the garbage collector."""

import gc


def keep_loaded() -> None:
    """Call once everything is imported and open. A full collection otherwise looks at all of it again, 50 ms and more
    in which the event loop stands still; now only at what came since."""
    gc.collect()
    gc.freeze()
