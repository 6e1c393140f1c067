"""Gradserve SDK."""
