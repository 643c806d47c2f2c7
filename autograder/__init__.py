"""The autograder of the VAE homework: what is right, what is wrong, and why."""

from autograder.jupyter import check

__all__ = ["check"]
