"""A test rig as its readers would write one: see README.md here."""
