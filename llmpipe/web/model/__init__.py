"""The HTTP service of a served model: a guard before llama.cpp's own server."""
