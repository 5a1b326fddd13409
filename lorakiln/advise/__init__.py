"""What to do with these pictures and why, what is wrong with a recipe, and what it will cost; never needs torch."""
