"""An index of public pictures -> a data folder, every hash checked. Imports no other room."""
