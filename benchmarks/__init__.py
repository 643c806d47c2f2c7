"""How fast grading and training are, as ratios measured side by side."""
