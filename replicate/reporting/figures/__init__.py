"""Draws figures from records. All modules but `style` are named like their figure's LaTeX label."""
