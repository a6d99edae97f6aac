"""Finds shortcuts: facts other than generator traces that give the label away. Imports `data`, `figures`."""
