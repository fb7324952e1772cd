"""From finished runs to the report's pictures: which numbers stand in which chart, and what a caption says of them."""
