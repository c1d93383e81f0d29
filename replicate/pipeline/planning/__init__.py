"""What a study costs, from configurations alone: memory and operations of a model, steps of a
stage, seconds on a device.
"""
