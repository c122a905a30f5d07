"""The campaign against the promises: a file for each, small in `make test`, whole in `make proof`."""
