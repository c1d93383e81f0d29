"""One file a figure, named as its LaTeX label: records of results/ in, a matplotlib figure out.
Pure.
"""
