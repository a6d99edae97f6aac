"""How fast an exported detector is, against what it replaces, measured in one run."""
