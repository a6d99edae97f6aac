"""Data folders -> labelled samples, augmented batches, degraded pictures, clips. Imports no other room."""
