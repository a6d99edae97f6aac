"""A search for better configurations: spaces, trials, the study and its page. Imports `data`, `figures`, `fitting`."""
