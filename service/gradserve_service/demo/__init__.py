"""The demo: real workers train a real network through a real server, beside the same training in one loop."""
