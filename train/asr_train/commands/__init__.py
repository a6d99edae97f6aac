"""The commands, each in a file: parse, call one function, print.  Imports every room."""
