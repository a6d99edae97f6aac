"""Live sources: connections, a reading thread for each, the inbox. Imports `media`, `sources`, `records`."""
