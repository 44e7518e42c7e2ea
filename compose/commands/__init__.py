"""The subcommands of `headwater`, one module each; the list of them stands in compose.__main__."""
