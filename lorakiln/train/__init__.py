"""How it learns: one step, the loop around it, what it writes down."""
