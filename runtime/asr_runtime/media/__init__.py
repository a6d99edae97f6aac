"""Files of pictures and videos -> pixels, with damage noticed. Imports `errors` only."""
