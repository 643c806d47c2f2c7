"""Tricks that students know, tried on this grader and on two others; see `__main__`."""
