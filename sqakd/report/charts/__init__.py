"""Charts as SVG text, drawn from plain numbers; colours are the page's variables, so that light and dark both work."""
