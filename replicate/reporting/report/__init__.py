"""The report as one HTML page: records of results/ and drawn figures in, text out; it fetches
nothing and runs nothing. Pure.
"""
