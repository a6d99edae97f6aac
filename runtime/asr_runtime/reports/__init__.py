"""Records -> text, pictures, alerts, metrics. Imports `records`, `contract`, `redact`, `windows`."""
