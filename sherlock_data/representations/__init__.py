"""Representations of the BOLD: each module plans one kind of store out of a recipe."""
