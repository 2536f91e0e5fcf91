"""A run as one HTML page, made of nothing but what runs write down."""
