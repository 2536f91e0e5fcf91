"""Where the figures that llmpipe's documents give come from."""
