"""Background images: what a frame looks like without cells."""
