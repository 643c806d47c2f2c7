"""Attacks on the grader: notebooks that try for points, leaks, crashes and traces."""
