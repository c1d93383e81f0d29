"""Draws figures from records. Each module but `style` has the name of its figure's LaTeX label."""
