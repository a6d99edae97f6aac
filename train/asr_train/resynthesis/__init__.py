"""Content-matched fakes: photos passed through neural networks. Imports `data`, `figures`."""
