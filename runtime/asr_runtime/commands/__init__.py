"""The command lines `asr-screen` and `asr-doctor`: parse, call one library function, print, set the exit code.

Imports every other room but `serve`, which has its own command; `asr_runtime.cli` alone imports this one.
"""
