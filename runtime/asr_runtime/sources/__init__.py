"""What the user named -> single pictures, videos and cameras, and the steps of decoding one. Imports `media`."""
