"""Each module runs one stage or command: it reads files, calls the library and writes files.

`run(config, name)` runs a stage. `config` has all parameters in params.yaml, and `name` is the name
of the stage's family or study; a stage for all studies takes `config` alone. A stage that computes
models one by one also takes `only`, the name of the one model to compute; None means all. If `only`
is not among the models, a `UserError` says so. The commands have arguments of their own.
"""
