"""Federations to try: each prepares real data, a folder of settings, and runs it."""
