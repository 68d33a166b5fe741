"""Reports: figures that add up to the charges, and the page and files that show them."""
