"""The HTTP service of a served model: a guard in front of llama.cpp's own server."""
