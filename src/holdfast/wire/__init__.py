"""Shapes that cross HTTP, and the one JSON codec. Server, client and worker share them."""
