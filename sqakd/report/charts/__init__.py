"""Charts as SVG text, drawn from plain numbers. Colours are CSS variables, so light and dark themes both work."""
