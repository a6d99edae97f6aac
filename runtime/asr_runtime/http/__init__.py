"""One HTTP client, with a limit on time and size, for cameras, remote files and alerts. Imports `redact`."""
